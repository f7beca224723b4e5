package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

// RFC 6455, section 1.3.
const webSocketGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// How long a client may take to open its streams, and to leave.
const sessionWait = 10 * time.Second

// session is a subresource that is connected to. A WebSocket is answered 101, one text on the channel of the output and the end; SPDY
// with the same on its streams, and a Status; anything else is answered 200. There is no container behind it.
type session struct {
	pods       *memory
	newOptions func() runtime.Object
	may        authorizer.Authorizer
}

var _ rest.Connecter = &session{}

func (s *session) New() runtime.Object      { return s.newOptions() }
func (s *session) Destroy()                 {}
func (s *session) ConnectMethods() []string { return []string{http.MethodGet, http.MethodPost} }
func (s *session) NewConnectOptions() (runtime.Object, bool, string) {
	return s.newOptions(), false, ""
}

func (s *session) Connect(ctx context.Context, name string, _ runtime.Object, _ rest.Responder) (http.Handler, error) {
	if _, err := s.pods.Get(ctx, name, nil); err != nil {
		return nil, err
	}
	return http.HandlerFunc(connected), s.mayCreate(ctx, name)
}

// mayCreate asks what kube-apiserver asks from 1.35: a session that begins with a GET, as WebSockets do, is a creation too
// (AuthorizePodWebsocketUpgradeCreatePermission).
func (s *session) mayCreate(ctx context.Context, name string) error {
	info, isKnown := genericrequest.RequestInfoFrom(ctx)
	caller, isSomebody := genericrequest.UserFrom(ctx)
	if !isKnown || !isSomebody {
		return apierrors.NewInternalError(errors.New("a request of nobody"))
	}
	if info.Verb == "create" {
		return nil
	}
	asked := authorizer.AttributesRecord{User: caller, Verb: "create", Namespace: info.Namespace, APIGroup: info.APIGroup, APIVersion: info.APIVersion,
		Resource: info.Resource, Subresource: info.Subresource, Name: info.Name, ResourceRequest: true}
	if decision, reason, err := s.may.Authorize(ctx, asked); decision != authorizer.DecisionAllow {
		return apierrors.NewForbidden(s.pods.resource, name, fmt.Errorf("not allowed to create a session: %s %v", reason, err))
	}
	return nil
}

// addSessionOptions reads the options of a session from a query, as the generated conversions of k8s.io/kubernetes do
// (pkg/apis/core/v1); what a container would be told does not matter here, so that only the common ones are read.
func addSessionOptions(made *runtime.Scheme) error {
	is := func(query *url.Values, name string) bool { return query.Get(name) == "true" || query.Get(name) == "1" }
	return errors.Join(
		made.AddConversionFunc((*url.Values)(nil), (*corev1.PodExecOptions)(nil), func(from, to any, _ conversion.Scope) error {
			query, options := from.(*url.Values), to.(*corev1.PodExecOptions)
			options.Stdin, options.Stdout, options.Stderr, options.TTY = is(query, "stdin"), is(query, "stdout"), is(query, "stderr"), is(query, "tty")
			options.Container, options.Command = query.Get("container"), (*query)["command"]
			return nil
		}),
		made.AddConversionFunc((*url.Values)(nil), (*corev1.PodAttachOptions)(nil), func(from, to any, _ conversion.Scope) error {
			query, options := from.(*url.Values), to.(*corev1.PodAttachOptions)
			options.Stdin, options.Stdout, options.Stderr, options.TTY = is(query, "stdin"), is(query, "stdout"), is(query, "stderr"), is(query, "tty")
			options.Container = query.Get("container")
			return nil
		}),
		made.AddConversionFunc((*url.Values)(nil), (*corev1.PodPortForwardOptions)(nil), func(any, any, conversion.Scope) error { return nil }),
	)
}

func connected(response http.ResponseWriter, request *http.Request) {
	if strings.EqualFold(request.Header.Get("Upgrade"), spdy.HeaderSpdy31) {
		connectedOverSPDY(response, request)
		return
	}
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

// A stream that the client has opened.
type openedStream struct {
	stream  httpstream.Stream
	replied <-chan struct{}
}

// The connection is taken over: the request is over for the audit log, whatever becomes of its streams.
func connectedOverSPDY(response http.ResponseWriter, request *http.Request) {
	if _, err := httpstream.Handshake(request, response, []string{"v4.channel.k8s.io"}); err != nil {
		return
	}
	streams := make(chan openedStream, 8)
	connection := spdy.NewResponseUpgrader().UpgradeResponse(response, request, func(stream httpstream.Stream, replied <-chan struct{}) error {
		streams <- openedStream{stream, replied}
		return nil
	})
	if connection != nil {
		go speak(connection, streams)
	}
}

func speak(connection httpstream.Connection, streams <-chan openedStream) {
	defer connection.Close()
	var output, status httpstream.Stream
	limit := time.After(sessionWait)
	for output == nil || status == nil {
		select {
		case one := <-streams:
			select {
			case <-one.replied:
			case <-connection.CloseChan():
				return
			}
			switch one.stream.Headers().Get(corev1.StreamType) {
			case corev1.StreamTypeStdout:
				output = one.stream
			case corev1.StreamTypeError:
				status = one.stream
			}
		case <-connection.CloseChan():
			return
		case <-limit:
			return
		}
	}
	_, _ = io.WriteString(output, "connected\n")
	_, _ = io.WriteString(status, `{"metadata":{},"status":"Success"}`)
	_, _ = output.Close(), status.Close()
	select {
	case <-connection.CloseChan():
	case <-limit:
	}
}
