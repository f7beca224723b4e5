package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
)

// What kube-apiserver has when no flag says otherwise (pkg/kubeapiserver/options, NewBuiltInAuthenticationOptions): a token that
// was good is held for good this long, whatever the keys have become.
const tokenSuccessCacheTTL = 10 * time.Second

// How long the start waits for the issuer: without its keys every token would be refused for a reason that is not the token's.
const issuerWait = 20 * time.Second

// kube-apiserver's own; a token of these cannot be another issuer's.
var disallowedIssuers = []string{"https://kubernetes.default.svc"}

func loadAuthentication(file string) (*apiserver.AuthenticationConfiguration, error) {
	if file == "" {
		return &apiserver.AuthenticationConfiguration{}, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	configScheme := runtime.NewScheme()
	install.Install(configScheme)
	strict := serializer.NewCodecFactory(configScheme, serializer.EnableStrict)
	decoded, err := runtime.Decode(strict.UniversalDecoder(), data)
	if err != nil {
		return nil, err
	}
	configuration, ok := decoded.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("expected an AuthenticationConfiguration, got %T", decoded)
	}
	compiler := authenticationcel.NewDefaultCompiler()
	if err := validation.ValidateAuthenticationConfiguration(compiler, configuration, disallowedIssuers).ToAggregate(); err != nil {
		return nil, err
	}
	return configuration, nil
}

func newIssuer(ctx context.Context, jwt apiserver.JWTAuthenticator) (authenticator.Token, error) {
	var ca oidc.CAContentProvider
	if jwt.Issuer.CertificateAuthority != "" {
		provider, err := dynamiccertificates.NewStaticCAContent("oidc-authenticator", []byte(jwt.Issuer.CertificateAuthority))
		if err != nil {
			return nil, err
		}
		ca = provider
	}
	issuer, err := oidc.New(ctx, oidc.Options{
		JWTAuthenticator:     jwt,
		CAContentProvider:    ca,
		SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(),
		DisallowedIssuers:    disallowedIssuers,
		APIServerID:          "modern-apiserver",
	})
	if err != nil {
		return nil, err
	}
	for end := time.Now().Add(issuerWait); issuer.HealthCheck() != nil; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			return nil, issuer.HealthCheck()
		}
	}
	return issuer, nil
}

// newAuthenticator is put together as kube-apiserver's (pkg/kubeapiserver/authenticator, Config.New).
func newAuthenticator(ctx context.Context, configFile, tokenFile string) (authenticator.Request, error) {
	configuration, err := loadAuthentication(configFile)
	if err != nil {
		return nil, err
	}
	var tokens []authenticator.Token
	if tokenFile != "" {
		fixed, err := tokenfile.NewCSV(tokenFile)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, authenticator.WrapAudienceAgnosticToken(nil, fixed))
	}
	for _, jwt := range configuration.JWT {
		issuer, err := newIssuer(ctx, jwt)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, authenticator.WrapAudienceAgnosticToken(nil, issuer))
	}
	cached := cache.New(tokenunion.New(tokens...), true, tokenSuccessCacheTTL, 0)
	requests := union.New(bearertoken.New(cached), websocket.NewProtocolAuthenticator(cached))
	authenticated := group.NewAuthenticatedGroupAdder(requests)
	if configuration.Anonymous == nil {
		return union.NewFailOnError(authenticated, anonymous.NewAuthenticator(nil)), nil
	}
	if configuration.Anonymous.Enabled {
		return union.NewFailOnError(authenticated, anonymous.NewAuthenticator(configuration.Anonymous.Conditions)), nil
	}
	return authenticated, nil
}

// whoHas answers a TokenReview.
func whoHas(ctx context.Context, request authenticator.Request, token string) (*authenticator.Response, bool, error) {
	asked, err := http.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	if err != nil {
		return nil, false, err
	}
	asked.Header.Set("Authorization", "Bearer "+token)
	return request.AuthenticateRequest(asked)
}
