// Command streams drives one stream of a CRI runtime with client-go: exec and attach copy this program's own
// streams, forward serves one local port. It exits with the command's code.
//
//	streams exec|attach [-tty] [-stdin] [-websocket] URL
//	streams forward [-websocket] URL LOCAL:REMOTE
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/signal"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

var (
	tty       = flag.Bool("tty", false, "the command has a terminal")
	stdin     = flag.Bool("stdin", false, "send standard input")
	websocket = flag.Bool("websocket", false, "WebSocket instead of SPDY")
	columns   = flag.Int("columns", 80, "width of the terminal")
)

type oneSize struct{ size *remotecommand.TerminalSize }

func (s *oneSize) Next() *remotecommand.TerminalSize {
	size := s.size
	s.size = nil
	return size
}

func main() {
	if err := run(os.Args[1]); err != nil {
		var code exec.CodeExitError
		if errors.As(err, &code) {
			os.Exit(code.Code)
		}
		fmt.Fprintln(os.Stderr, "streams:", err)
		os.Exit(255)
	}
}

func run(kind string) error {
	if err := flag.CommandLine.Parse(os.Args[2:]); err != nil {
		return err
	}
	target, err := url.Parse(flag.Arg(0))
	if err != nil {
		return err
	}
	config := &rest.Config{Host: target.Host, TLSClientConfig: rest.TLSClientConfig{Insecure: target.Scheme == "https"}}
	if kind == "forward" {
		return forward(config, target, flag.Arg(1))
	}
	return stream(config, target)
}

func stream(config *rest.Config, target *url.URL) error {
	var executor remotecommand.Executor
	var err error
	if *websocket {
		executor, err = remotecommand.NewWebSocketExecutor(config, "GET", target.String())
	} else {
		executor, err = remotecommand.NewSPDYExecutor(config, "POST", target)
	}
	if err != nil {
		return err
	}
	options := remotecommand.StreamOptions{Stdout: os.Stdout, Tty: *tty}
	if *stdin {
		options.Stdin = os.Stdin
	}
	if *tty {
		options.TerminalSizeQueue = &oneSize{&remotecommand.TerminalSize{Width: uint16(*columns), Height: 24}}
	} else {
		options.Stderr = os.Stderr
	}
	return executor.StreamWithContext(context.Background(), options)
}

func forward(config *rest.Config, target *url.URL, ports string) error {
	transport, upgrader, err := spdy.RoundTripperFor(config)
	if err != nil {
		return err
	}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, "POST", target)
	if *websocket {
		if dialer, err = portforward.NewSPDYOverWebsocketDialer(target, config); err != nil {
			return err
		}
	}
	stop := make(chan struct{})
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	go func() { <-interrupted; close(stop) }()
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{ports}, stop, nil, os.Stdout, os.Stderr)
	if err != nil {
		return err
	}
	return forwarder.ForwardPorts()
}
