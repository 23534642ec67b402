"""Exec and attach: the streams of a process in a container, as Kubernetes' remotecommand has them.

Source: k8s.io/streaming, subprotocols channel.k8s.io to v5.channel.k8s.io. With SPDY each stream names itself in its
header streamType; with WebSocket a channel's number says what it is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from runtime_core.errors import TrivetError
from runtime_core.streaming import process_streams, status
from runtime_core.streaming.channels import Aborted, Data, Ended, Event, Framing, Opened
from runtime_core.streaming.connection import ClientConnection
from runtime_core.streaming.loop import Loop
from runtime_core.streaming.monitor_channel import MonitorChannel
from runtime_core.streaming.pumps import Sink, Source

#: the channels of WebSocket subprotocols, by number
WEBSOCKET_CHANNELS = ("stdin", "stdout", "stderr", "error", "resize")
#: subprotocols whose last word is a metav1.Status; before them it was a sentence, or nothing after success
_WITH_STATUS = ("v4.channel.k8s.io", "v4.base64.channel.k8s.io", "v5.channel.k8s.io", "v5.base64.channel.k8s.io")
_WITHOUT_RESIZE = ("", "channel.k8s.io", "v2.channel.k8s.io")
#: bytes that an attached client may be behind, beside the pipe of the monitor; after that the monitor lets it go
_MOST_BEHIND = 8 * 1024 * 1024
_DRAIN_READS = 64  # more than a pipe holds: a child that writes on and on is not waited for
_LONGEST_SIZE = 4096  # of resize messages that are not whole yet


class RemoteCommand:
    """One exec or attach; it is over with its process.

    `grant`: {"kind": "exec" | "attach", "directory", "container_id", "stdin", "stdout", "stderr", "tty",
    "process": the OCI process of an exec}. `monitor` is closed with it.
    """

    def __init__(
        self,
        loop: Loop,
        client: ClientConnection,
        monitor: MonitorChannel,
        framing: Framing,
        grant: dict[str, Any],
        protocol: str,
        *,
        is_numbered: bool,
    ) -> None:
        """`is_numbered`: the channels are those of WEBSOCKET_CHANNELS, all of them open."""
        self._loop, self._client, self._monitor, self._framing, self._grant = loop, client, monitor, framing, grant
        self._is_numbered, self._has_status = is_numbered, protocol in _WITH_STATUS
        self._expected = {"error"} | {name for name in ("stdin", "stdout", "stderr") if grant[name]}
        if grant["tty"] and protocol not in _WITHOUT_RESIZE:
            self._expected.add("resize")
        self._channels: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._sources: list[Source] = []
        self._stdin: Sink | None = None
        self._terminal = -1
        self._sizes = ""
        self._exit_code: int | None = None
        self._has_room = True
        self.has_begun = self.is_over = False
        client.on_room = self._set_room

    # -- what the client says

    def receive(self, event: Event) -> None:
        """One event of the connection."""
        if isinstance(event, Opened):
            self._open_channel(event)
        elif isinstance(event, Data):
            self._receive_data(self._names.get(event.channel, ""), event.data)
        elif isinstance(event, (Ended, Aborted)) and self._names.get(event.channel) == "stdin":
            self._end_stdin()

    def _open_channel(self, event: Opened) -> None:
        name = WEBSOCKET_CHANNELS[event.channel] if self._is_numbered else event.headers.get("streamtype", "")
        if name not in self._expected or name in self._channels:
            self._client.send([self._framing.abort(event.channel)])
            return
        self._channels[name], self._names[event.channel] = event.channel, name
        if not self.has_begun and self._expected <= self._channels.keys():
            self.has_begun = True
            self._begin()

    def _receive_data(self, name: str, data: bytes | memoryview) -> None:
        if name == "stdin" and self._stdin is not None:
            self._stdin.write(data)
        elif name == "resize":
            self._resize(data)

    def _end_stdin(self) -> None:
        if self._stdin is None:
            return
        if self._terminal >= 0 and self._grant["kind"] == "exec":
            # A terminal has no half-close: the program is told as by a person who types ^D.
            self._stdin.write(process_streams.end_of_file(self._terminal))
        else:
            self._stdin.finish()

    def _resize(self, data: bytes | memoryview) -> None:
        """{"Width": columns, "Height": rows}, one behind the other."""
        self._sizes = (self._sizes + bytes(data).decode("utf-8", "replace"))[-_LONGEST_SIZE:].lstrip()
        while self._sizes:
            try:
                size, end = json.JSONDecoder().raw_decode(self._sizes)
            except ValueError:
                return  # not whole yet
            self._sizes = self._sizes[end:].lstrip()
            if isinstance(size, dict) and self._terminal >= 0:
                process_streams.set_size(self._terminal, size.get("Width"), size.get("Height"))

    # -- the process

    def _begin(self) -> None:
        connect = process_streams.start_exec if self._grant["kind"] == "exec" else process_streams.attach
        try:
            streams = connect(self._monitor, self._grant)
        except (TrivetError, OSError) as error:
            self._end(status.failed(str(error)), str(error))
            return
        if self._is_numbered:
            # An empty message tells the client that it is connected; what the process writes from now on comes.
            self._send(next(name for name in ("stdout", "stderr", "error") if self._grant.get(name, True)), b"")
        self._use(streams)
        self._loop.on_readable(self._monitor.fileno(), self._hear_monitor)
        self._hear_monitor()  # what came with the answer is not told again

    def _use(self, streams: process_streams.ProcessStreams) -> None:
        self._terminal = streams.terminal
        for name, descriptor in (("stdout", streams.stdout), ("stderr", streams.stderr)):
            if descriptor >= 0:
                self._sources.append(Source(self._loop, descriptor, self._sender(name), lambda: None))
        if streams.stdin >= 0:
            self._stdin = Sink(self._loop, streams.stdin, self._client, self._close_stdin)

    def _sender(self, name: str) -> Callable[[bytes], None]:
        def send(data: bytes) -> None:
            self._send(name, data)
            if self._grant["kind"] == "attach" and self._client.unsent_bytes > _MOST_BEHIND:
                self._pause()

        return send

    def _send(self, name: str, data: bytes) -> None:
        if name in self._channels:
            self._client.send(self._framing.frame(self._channels[name], data))

    def _close_stdin(self) -> None:
        """All that the client has sent is written, or nobody reads it any more."""
        if self._stdin is None:
            return
        os.close(self._stdin.descriptor)
        self._stdin = None
        if self._grant["kind"] == "attach" and not self.is_over:
            try:
                self._monitor.call("close_stdin", {"container_id": self._grant["container_id"]})
            except TrivetError:
                pass  # it has gone, and its socket says so
            self._hear_monitor()  # what came before the answer is not told again

    # -- the end

    def _hear_monitor(self) -> None:
        try:
            events = self._monitor.events()
        except (EOFError, OSError):
            self._end(status.failed("the pod's monitor has died"), "the pod's monitor has died")
            return
        for event in events:
            if event["event"] == "exec_exit":
                self._exit_code = event["exit_code"]
            elif event["event"] == "exit" and self._grant["kind"] == "attach":
                if event["container_id"] == self._grant["container_id"]:
                    self._exit_code = 0
            elif event["event"] == "detached":
                self._end(status.failed(event["reason"]), event["reason"])
                return
        self._look_for_end()

    def _look_for_end(self) -> None:
        """Once the process has ended, send what it has written. A child of its that keeps the pipes open is not waited for."""
        if self._exit_code is None or self.is_over:
            return
        for source in self._sources:
            for _read in range(_DRAIN_READS):
                if self.is_over or not (self._has_room and source.is_open and source.read()):
                    break
        if self._has_room and self._exit_code:
            self._end(status.exited(self._exit_code), f"command terminated with exit code {self._exit_code}")
        elif self._has_room:
            self._end(status.success(), "")

    def _end(self, document: bytes, sentence: str) -> None:
        """How it ended is the last word, on the error channel."""
        if self.is_over:
            return
        for name in ("stdout", "stderr", "resize", "stdin"):
            self._finish(name)
        content = document if self._has_status else sentence.encode()
        if content:
            self._send("error", content)
        self._finish("error")
        self.close()

    def _finish(self, name: str) -> None:
        if name in self._channels:
            self._client.send([self._framing.finish(self._channels[name])])

    def _set_room(self, has_room: bool) -> None:
        """An exec waits for its client. Of attach the monitor waits for nobody: what a burst brings is kept for a while."""
        if has_room:
            self._has_room = True
            for source in self._sources:
                source.resume()
            self._look_for_end()
        elif self._grant["kind"] == "exec":
            self._pause()

    def _pause(self) -> None:
        self._has_room = False
        for source in self._sources:
            source.pause()

    def close(self) -> None:
        """Give everything up: the monitor ends what this connection has begun there."""
        if self.is_over:
            return
        self.is_over = True
        for source in self._sources:
            source.pause()
        self._loop.forget(self._monitor.fileno())
        self._monitor.close()
