module trivet.test/peers/runtime

go 1.26.0
