package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

// RFC 6455, section 1.3.
const webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// session is a subresource that is connected to. A WebSocket is answered 101, one text on the channel of the output and the end;
// anything else is answered 200. There is no container behind it.
type session struct {
	pods       *memory
	newOptions func() runtime.Object
}

var _ rest.Connecter = &session{}

func (s *session) New() runtime.Object      { return s.pods.New() }
func (s *session) Destroy()                 {}
func (s *session) ConnectMethods() []string { return []string{http.MethodGet, http.MethodPost} }
func (s *session) NewConnectOptions() (runtime.Object, bool, string) {
	return s.newOptions(), false, ""
}

func (s *session) Connect(ctx context.Context, name string, _ runtime.Object, _ rest.Responder) (http.Handler, error) {
	if _, err := s.pods.Get(ctx, name, nil); err != nil {
		return nil, err
	}
	return http.HandlerFunc(connected), nil
}

func connected(response http.ResponseWriter, request *http.Request) {
	if !strings.EqualFold(request.Header.Get("Upgrade"), "websocket") {
		fmt.Fprintln(response, "connected")
		return
	}
	hijacker, ok := response.(http.Hijacker)
	if !ok {
		http.Error(response, "cannot upgrade", http.StatusInternalServerError)
		return
	}
	socket, buffered, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer socket.Close()
	digest := sha1.Sum([]byte(request.Header.Get("Sec-WebSocket-Key") + webSocketGUID))
	fmt.Fprintf(buffered, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n", base64.StdEncoding.EncodeToString(digest[:]))
	for _, protocol := range strings.Split(request.Header.Get("Sec-WebSocket-Protocol"), ",") {
		if offered := strings.TrimSpace(protocol); strings.HasSuffix(offered, "channel.k8s.io") {
			fmt.Fprintf(buffered, "Sec-WebSocket-Protocol: %s\r\n", offered)
			break
		}
	}
	// A whole binary message of 11 bytes (channel 1, "connected\n"), and the close frame with the code 1000.
	fmt.Fprint(buffered, "\r\n\x82\x0b\x01connected\n\x88\x02\x03\xe8")
	_ = buffered.Flush()
}
