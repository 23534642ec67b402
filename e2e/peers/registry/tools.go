//go:build tools

// Package tools names the program that this module is here to build.
package tools

import _ "github.com/distribution/distribution/v3/cmd/registry"
