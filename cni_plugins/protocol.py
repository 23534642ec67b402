"""Constants of the protocol between plugin executables and the warm service. Built-in modules alone."""

#: the first byte of a response: the service has begun the call
ACCEPTED = b"+"
#: the status by which the service declines a call; nothing has been done then
DECLINED = -1
#: what became of a call, also in the words of the machine code: the service died after ACCEPTED; it did not take it, sent it
#: back, or died before; it took it and does not answer
SERVICE_DIED, NO_SERVICE, SERVICE_HUNG = "--trivet-died", "--trivet-alone", "--trivet-hung"
#: so long a service may take to take a call, and then to answer it, which is longer than a DHCP server is waited for
ACCEPT_SECONDS, ANSWER_SECONDS = 10, 240
