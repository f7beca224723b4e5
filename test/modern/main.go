// Command modern-apiserver is an API server made of Kubernetes' own newest library code (k8s.io/apiserver), for trying the files
// that `nestgate connect` writes where no kube-apiserver of that age can be had.
//
// Genuine: TLS, the whole chain of filters (audit, authentication, impersonation with its constrained modes, authorization), the
// request handlers (update, patch, server-side apply, connect), the loading and validation of both configuration files, the OIDC
// authenticator and its cache, the webhook authorizer, and the admission plugins (namespace lifecycle, both kinds of webhook,
// ValidatingAdmissionPolicy). Written here, because it lives in k8s.io/kubernetes: what wires them together, the evaluation of
// RBAC rules, a few defaults, and storage in memory. There are no service account tokens: an account is a line of the token file.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	webhookinitializer "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Nothing here asks for objects again: the informers follow what is in memory.
const informerResync = 10 * time.Minute

type settings struct {
	authenticationConfig string
	authorizationConfig  string
	tokenAuthFile        string
	featureGates         string
	checkTypes           string
	serving              *options.SecureServingOptions
	audit                *options.AuditOptions
	admission            *options.AdmissionOptions
}

// The names of the flags are kube-apiserver's, but for --check-types.
func parse(arguments []string) (*settings, error) {
	s := &settings{
		serving:   options.NewSecureServingOptions(),
		audit:     options.NewAuditOptions(),
		admission: options.NewAdmissionOptions(),
	}
	flags := pflag.NewFlagSet("modern-apiserver", pflag.ContinueOnError)
	flags.StringVar(&s.authenticationConfig, "authentication-config", "", "file with an AuthenticationConfiguration")
	flags.StringVar(&s.authorizationConfig, "authorization-config", "", "file with an AuthorizationConfiguration; without it RBAC alone decides")
	flags.StringVar(&s.tokenAuthFile, "token-auth-file", "", "file with lines TOKEN,USER,UID,\"GROUP,GROUP\"")
	flags.StringVar(&s.featureGates, "feature-gates", "", "NAME=true|false, comma separated")
	flags.StringVar(&s.checkTypes, "check-types", "", "file with a list of policies, as JSON: what is wrong with their types is printed, and nothing served")
	s.serving.AddFlags(flags)
	s.audit.AddFlags(flags)
	s.admission.AddFlags(flags)
	s.serving.BindAddress = net.IPv4(127, 0, 0, 1)
	s.serving.ServerCert.CertDirectory = ""
	if err := flags.Parse(arguments); err != nil {
		return nil, err
	}
	if s.featureGates != "" {
		if err := utilfeature.DefaultMutableFeatureGate.Set(s.featureGates); err != nil {
			return nil, err
		}
	}
	s.admission.DisablePlugins = append(s.admission.DisablePlugins, mutatingpolicy.PluginName)
	return s, nil
}

// listen takes a free port for the port 0, which SecureServingOptions holds for "do not serve".
func listen(serving *options.SecureServingOptions) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(serving.BindAddress.String(), fmt.Sprint(serving.BindPort)))
	if err != nil {
		return err
	}
	serving.Listener = listener
	return serving.MaybeDefaultWithSelfSignedCerts("localhost", nil, []net.IP{net.IPv4(127, 0, 0, 1)})
}

func configure(s *settings, config *server.Config) error {
	config.EffectiveVersion = compatibility.DefaultBuildEffectiveVersion()
	config.FeatureGate = utilfeature.DefaultFeatureGate
	config.EnableMetrics = false
	config.EnableProfiling = false
	config.SkipOpenAPIInstallation = true
	namer := openapi.NewDefinitionNamer(scheme)
	config.OpenAPIV3Config = server.DefaultOpenAPIV3Config(looseDefinitions, namer)
	config.LegacyAPIGroupPrefixes.Insert(server.DefaultLegacyAPIPrefix)
	config.LongRunningFunc = longRunning
	if err := listen(s.serving); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	if err := s.serving.WithLoopback().ApplyToConfig(config); err != nil {
		return fmt.Errorf("serving: %w", err)
	}
	return s.audit.ApplyTo(config)
}

type clients struct {
	kubernetes kubernetes.Interface
	dynamic    dynamic.Interface
	informers  informers.SharedInformerFactory
}

func loopbackClients(config *rest.Config) (*clients, error) {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &clients{client, dynamicClient, informers.NewSharedInformerFactory(client, informerResync)}, nil
}

func run(arguments []string) error {
	s, err := parse(arguments)
	if err != nil {
		return err
	}
	if s.checkTypes != "" {
		return checkTypes(s.checkTypes)
	}
	ctx := server.SetupSignalContext()
	stores := newStores()
	config := server.NewConfig(codecs)
	if err := configure(s, config); err != nil {
		return err
	}
	authenticator, err := newAuthenticator(ctx, s.authenticationConfig, s.tokenAuthFile)
	if err != nil {
		return fmt.Errorf("authentication: %w", err)
	}
	config.Authentication.Authenticator = authenticator
	roles := &rbac{stores}
	authorizer, err := newAuthorizer(s.authorizationConfig, roles)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	config.Authorization.Authorizer = authorizer
	stores.byName["roles"].mayWrite = func(ctx context.Context, object runtime.Object) error {
		return roles.mayGive(ctx, authorizer, object)
	}
	loopback, err := loopbackClients(config.LoopbackClientConfig)
	if err != nil {
		return err
	}
	if err := s.admission.ApplyTo(config, loopback.informers, loopback.kubernetes, loopback.dynamic,
		utilfeature.DefaultFeatureGate, config.EffectiveVersion, webhookCallers(), excludeReviews{}); err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	apiServer, err := config.Complete(loopback.informers).New("modern-apiserver", server.NewEmptyDelegate())
	if err != nil {
		return err
	}
	if err := serve(apiServer, stores, authenticator, authorizer); err != nil {
		return err
	}
	if err := seed(stores); err != nil {
		return err
	}
	address := s.serving.Listener.Addr().String()
	apiServer.AddPostStartHookOrDie("say-where", func(server.PostStartHookContext) error {
		fmt.Printf("serving https://%s\n", address)
		return nil
	})
	return apiServer.PrepareRun().RunWithContext(ctx)
}

// webhookCallers lets the webhook plugins call what their configurations name; a service is its name in DNS.
func webhookCallers() admission.PluginInitializer {
	wrapper := webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, nil, nil)
	return webhookinitializer.NewPluginInitializer(wrapper, webhook.NewDefaultServiceResolver())
}

// excludeReviews tells the policies what kube-apiserver tells them: no policy judges a review.
type excludeReviews struct{}

func (excludeReviews) Initialize(plugin admission.Interface) {
	if wants, ok := plugin.(initializer.WantsExcludedAdmissionResources); ok {
		wants.SetExcludedAdmissionResources(reviewResources)
	}
}

func main() {
	klog.SetOutput(os.Stderr)
	what := run
	if len(os.Args) > 1 && os.Args[1] == "spdystream" {
		what = spdyMain
	}
	if err := what(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "modern-apiserver:", strings.TrimSpace(err.Error()))
		os.Exit(1)
	}
}
