package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/moby/spdystream"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
)

// What a stream is asked for in its header "do"; spdy.test.ts knows the same words.
//
//	echo    sends back what comes, ends when that ends
//	sum     reads to the end, then sends the SHA-256 of it
//	source  sends "size" bytes and their SHA-256, then ends; what comes is dropped
//	early   ends at once, then reads to the end and prints the SHA-256 of it
//	reject  is not taken
const (
	spdyBulk       = 64 << 20
	spdyStreams    = 1000
	spdyConcurrent = 50
	spdyPings      = 20 * time.Millisecond
)

// What `modern-apiserver spdystream` does. It speaks SPDY as the peers of the broker do, with their own code: `serve` on a port that it prints, until it is killed; `call PORT`
// does everything that a client can do, prints "done", and exits with 0.
func spdyMain(arguments []string) error {
	switch {
	case len(arguments) == 2 && arguments[1] == "serve":
		return spdyServe()
	case len(arguments) == 3 && arguments[1] == "call":
		if err := spdyCall("127.0.0.1:" + arguments[2]); err != nil {
			return err
		}
		fmt.Println("done")
		return nil
	}
	return errors.New("usage: spdystream serve|call PORT")
}

func spdyServe() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	for {
		socket, err := listener.Accept()
		if err != nil {
			return err
		}
		connection, err := spdy.NewServerConnectionWithPings(socket, spdyTake, spdyPings)
		if err != nil {
			return err
		}
		go func() {
			<-connection.CloseChan()
			connection.Close()
			fmt.Println("closed")
		}()
	}
}

func spdyTake(stream httpstream.Stream, replied <-chan struct{}) error {
	what := stream.Headers().Get("do")
	if what == "reject" {
		return errors.New("asked to")
	}
	go func() {
		<-replied
		if err := spdyDo(stream, what); err != nil {
			fmt.Println("failed:", what, err)
		}
	}()
	return nil
}

func spdyDo(stream httpstream.Stream, what string) error {
	switch what {
	case "echo":
		if _, err := io.Copy(stream, stream); err != nil {
			return err
		}
		return stream.Close()
	case "sum":
		sum, err := spdySum(stream)
		if err != nil {
			return err
		}
		if _, err := io.WriteString(stream, sum); err != nil {
			return err
		}
		return stream.Close()
	case "source":
		size, err := strconv.Atoi(stream.Headers().Get("size"))
		if err != nil {
			return err
		}
		if err := spdySend(stream, size); err != nil {
			return err
		}
		return stream.Close()
	case "early":
		if err := stream.Close(); err != nil {
			return err
		}
		sum, err := spdySum(stream)
		fmt.Println("sum", sum)
		return err
	}
	return errors.New("unknown")
}

func spdySum(from io.Reader) (string, error) {
	hash := sha256.New()
	_, err := io.Copy(hash, from)
	return hex.EncodeToString(hash.Sum(nil)), err
}

// Sends random bytes, in one frame for each 32 KiB as kubectl does, and their sum.
func spdySend(to io.Writer, size int) error {
	block := make([]byte, 32<<10)
	if _, err := rand.Read(block); err != nil {
		return err
	}
	hash := sha256.New()
	for left := size; left > 0; left -= len(block) {
		block = block[:min(left, len(block))]
		block[0]++
		hash.Write(block)
		if _, err := to.Write(block); err != nil {
			return err
		}
	}
	_, err := io.WriteString(to, hex.EncodeToString(hash.Sum(nil)))
	return err
}

func spdyCall(address string) error {
	socket, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	connection, err := spdy.NewClientConnectionWithPings(socket, spdyPings)
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(httpstream.Connection) error
	}{
		{"small", spdyCallSmall},
		{"rejected", spdyCallRejected},
		{"half-closed", spdyCallHalfClosed},
		{"many", spdyCallMany},
		{"bulk", spdyCallBulk},
	} {
		if err := step.run(connection); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if err := connection.Close(); err != nil {
		return err
	}
	select {
	case <-connection.CloseChan():
	case <-time.After(5 * time.Second):
		return errors.New("the connection is not closed after GOAWAY")
	}
	return spdyCallRaw(address)
}

func spdyOpen(connection httpstream.Connection, what string, more ...string) (httpstream.Stream, error) {
	headers := http.Header{}
	headers.Set("do", what)
	for i := 0; i < len(more); i += 2 {
		headers.Set(more[i], more[i+1])
	}
	return connection.CreateStream(headers)
}

func spdyCallSmall(connection httpstream.Connection) error {
	return spdyEcho(connection, "hello")
}

func spdyEcho(connection httpstream.Connection, text string) error {
	stream, err := spdyOpen(connection, "echo", "x-of", text)
	if err != nil {
		return err
	}
	defer connection.RemoveStreams(stream)
	if _, err := io.WriteString(stream, text); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	answer, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	if string(answer) != text {
		return fmt.Errorf("%q came back as %q", text, answer)
	}
	return nil
}

func spdyCallRejected(connection httpstream.Connection) error {
	if _, err := spdyOpen(connection, "reject"); !errors.Is(err, spdystream.ErrReset) {
		return fmt.Errorf("not reset, but %v", err)
	}
	return nil
}

// Both ways: the peer sends after our end, and we send after the peer's.
func spdyCallHalfClosed(connection httpstream.Connection) error {
	block := bytes.Repeat([]byte("x"), 1<<20)
	want := sha256.Sum256(block)
	stream, err := spdyOpen(connection, "sum")
	if err != nil {
		return err
	}
	if _, err := stream.Write(block); err != nil { // one frame of 1 MiB
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	sum, err := io.ReadAll(stream)
	if err != nil {
		return err
	}
	if string(sum) != hex.EncodeToString(want[:]) {
		return fmt.Errorf("sum %q", sum)
	}
	if stream, err = spdyOpen(connection, "early"); err != nil {
		return err
	}
	if rest, err := io.ReadAll(stream); err != nil || len(rest) > 0 {
		return fmt.Errorf("early: %q, %v", rest, err)
	}
	if _, err := stream.Write(block); err != nil {
		return err
	}
	return stream.Close()
}

func spdyCallMany(connection httpstream.Connection) error {
	errs := make(chan error, spdyStreams)
	var group sync.WaitGroup
	for worker := range spdyConcurrent {
		group.Add(1)
		go func() {
			defer group.Done()
			for n := worker; n < spdyStreams; n += spdyConcurrent {
				if err := spdyEcho(connection, "stream "+strconv.Itoa(n)); err != nil {
					errs <- err
				}
			}
		}()
	}
	group.Wait()
	close(errs)
	return <-errs
}

// Both ways at once.
func spdyCallBulk(connection httpstream.Connection) error {
	up, err := spdyOpen(connection, "sum")
	if err != nil {
		return err
	}
	// the last that is opened: what comes and is not read lets no reply through
	down, err := spdyOpen(connection, "source", "size", strconv.Itoa(spdyBulk))
	if err != nil {
		return err
	}
	sent := make(chan error, 1)
	hash := sha256.New()
	go func() {
		err := spdySend(io.MultiWriter(hash, up), spdyBulk)
		if err == nil {
			err = up.Close()
		}
		sent <- err
	}()
	all, err := io.ReadAll(down)
	if err != nil {
		return err
	}
	if len(all) != spdyBulk+64 {
		return fmt.Errorf("%d bytes", len(all))
	}
	sum := sha256.Sum256(all[:spdyBulk])
	if hex.EncodeToString(sum[:]) != string(all[spdyBulk:]) {
		return errors.New("other bytes than were sent")
	}
	if err := <-sent; err != nil {
		return err
	}
	answer, err := io.ReadAll(up)
	if err != nil {
		return err
	}
	if string(answer) != hex.EncodeToString(hash.Sum(nil)) {
		return errors.New("other bytes came than were sent")
	}
	return nil
}

// Without Kubernetes' layer: pings that are measured, and a GOAWAY that lets an open stream go on.
func spdyCallRaw(address string) error {
	socket, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	connection, err := spdystream.NewConnection(socket, false)
	if err != nil {
		return err
	}
	go connection.Serve(spdystream.NoOpStreamHandler)
	for range 10 {
		if _, err := connection.Ping(); err != nil {
			return fmt.Errorf("ping: %w", err)
		}
	}
	stream, err := connection.CreateStream(http.Header{"Do": {"echo"}}, nil, false)
	if err != nil {
		return err
	}
	if err := stream.WaitTimeout(5 * time.Second); err != nil {
		return err
	}
	if err := connection.Close(); err != nil {
		return err
	}
	if _, err := io.WriteString(stream, "after GOAWAY"); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	answer, err := io.ReadAll(stream)
	if err != nil || string(answer) != "after GOAWAY" {
		return fmt.Errorf("after GOAWAY: %q, %v", answer, err)
	}
	return connection.Wait(5 * time.Second)
}
