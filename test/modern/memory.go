package main

import (
	"context"
	"fmt"
	"sort"
	"strconv"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"
	genericrequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
)

// Events that may wait for one watcher before writes wait for it.
const watchQueue = 100

// How often a write is tried again when another came between.
const writeTries = 5

// memory is the storage of one resource: every verb of a standard resource, kept in a map.
type memory struct {
	rest.TableConvertor
	resource    schema.GroupResource
	kind        schema.GroupVersionKind
	namespaced  bool
	newObject   func() runtime.Object
	newList     func() runtime.Object
	validate    func(object runtime.Object) field.ErrorList
	createOnPut bool
	// Whether the caller may write this at all; nil where that was decided before.
	mayWrite func(ctx context.Context, object runtime.Object) error
	// Shared by all resources, as etcd's revision is.
	revision *revision

	lock        sync.Mutex
	objects     map[string]runtime.Object
	broadcaster *watch.Broadcaster
}

type revision struct {
	lock sync.Mutex
	last int64
}

func (r *revision) next() string {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.last++
	return strconv.FormatInt(r.last, 10)
}

func (r *revision) current() string {
	r.lock.Lock()
	defer r.lock.Unlock()
	return strconv.FormatInt(r.last, 10)
}

var (
	_ rest.StandardStorage      = &memory{}
	_ rest.Scoper               = &memory{}
	_ rest.SingularNameProvider = &memory{}
)

func (m *memory) New() runtime.Object     { return m.newObject() }
func (m *memory) NewList() runtime.Object { return m.newList() }
func (m *memory) Destroy()                {}
func (m *memory) NamespaceScoped() bool   { return m.namespaced }
func (m *memory) GetSingularName() string { return m.resource.Resource }

func key(namespace, name string) string { return namespace + "/" + name }

func (m *memory) keyOf(ctx context.Context, name string) string {
	return key(genericrequest.NamespaceValue(ctx), name)
}

func must(object runtime.Object) metav1.Object {
	accessor, err := meta.Accessor(object)
	if err != nil {
		panic(err)
	}
	return accessor
}

func (m *memory) read(key string) runtime.Object {
	m.lock.Lock()
	defer m.lock.Unlock()
	if object, ok := m.objects[key]; ok {
		return object.DeepCopyObject()
	}
	return nil
}

// commit writes if the object is still at the version that was read ("" for none), and says whether it did.
func (m *memory) commit(key, before string, object runtime.Object) bool {
	m.lock.Lock()
	defer m.lock.Unlock()
	old, exists := m.objects[key]
	if exists != (before != "") || (exists && must(old).GetResourceVersion() != before) {
		return false
	}
	event := watch.Added
	switch {
	case object == nil:
		event = watch.Deleted
		object = old.DeepCopyObject()
		must(object).SetResourceVersion(m.revision.next())
		delete(m.objects, key)
	case exists:
		event = watch.Modified
		must(object).SetResourceVersion(m.revision.next())
		m.objects[key] = object.DeepCopyObject()
	default:
		must(object).SetResourceVersion(m.revision.next())
		m.objects[key] = object.DeepCopyObject()
	}
	_ = m.broadcaster.Action(event, object.DeepCopyObject())
	return true
}

func (m *memory) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	if object := m.read(m.keyOf(ctx, name)); object != nil {
		return object, nil
	}
	return nil, apierrors.NewNotFound(m.resource, name)
}

func (m *memory) matcher(ctx context.Context, options *internalversion.ListOptions) func(runtime.Object) bool {
	namespace := genericrequest.NamespaceValue(ctx)
	return func(object runtime.Object) bool {
		accessor := must(object)
		if namespace != "" && accessor.GetNamespace() != namespace {
			return false
		}
		if options == nil {
			return true
		}
		if options.LabelSelector != nil && !options.LabelSelector.Matches(labels.Set(accessor.GetLabels())) {
			return false
		}
		known := fields.Set{"metadata.name": accessor.GetName(), "metadata.namespace": accessor.GetNamespace()}
		return options.FieldSelector == nil || options.FieldSelector.Matches(known)
	}
}

// matching is called with the lock held.
func (m *memory) matching(matches func(runtime.Object) bool) []runtime.Object {
	var keys []string
	for key, object := range m.objects {
		if matches(object) {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	found := make([]runtime.Object, 0, len(keys))
	for _, key := range keys {
		found = append(found, m.objects[key].DeepCopyObject())
	}
	return found
}

func (m *memory) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	list := m.newList()
	if err := meta.SetList(list, m.matching(m.matcher(ctx, options))); err != nil {
		return nil, err
	}
	accessor, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	accessor.SetResourceVersion(m.revision.current())
	return list, nil
}

func (m *memory) bookmark() watch.Event {
	object := m.newObject()
	must(object).SetResourceVersion(m.revision.current())
	must(object).SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	return watch.Event{Type: watch.Bookmark, Object: object}
}

// Watch begins after the given version; what was deleted between a list and its watch is not told.
func (m *memory) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	since := int64(0)
	if options != nil && options.ResourceVersion != "" {
		parsed, err := strconv.ParseInt(options.ResourceVersion, 10, 64)
		if err != nil {
			return nil, apierrors.NewBadRequest("resourceVersion: " + err.Error())
		}
		since = parsed
	}
	matches := m.matcher(ctx, options)
	m.lock.Lock()
	defer m.lock.Unlock()
	var first []watch.Event
	for _, object := range m.matching(matches) {
		at, _ := strconv.ParseInt(must(object).GetResourceVersion(), 10, 64)
		if at > since {
			first = append(first, watch.Event{Type: watch.Added, Object: object})
		}
	}
	// a watch without a version is defaulted to SendInitialEvents; only who takes bookmarks hears where the beginning ends
	if options != nil && options.AllowWatchBookmarks && options.SendInitialEvents != nil && *options.SendInitialEvents {
		first = append(first, m.bookmark())
	}
	watcher, err := m.broadcaster.WatchWithPrefix(first)
	if err != nil {
		return nil, err
	}
	return watch.Filter(watcher, func(event watch.Event) (watch.Event, bool) {
		return event, event.Type == watch.Bookmark || matches(event.Object)
	}), nil
}

func (m *memory) check(ctx context.Context, object runtime.Object) error {
	if m.mayWrite != nil {
		if err := m.mayWrite(ctx, object); err != nil {
			return err
		}
	}
	if m.validate == nil {
		return nil
	}
	if errs := m.validate(object); len(errs) > 0 {
		return apierrors.NewInvalid(m.kind.GroupKind(), must(object).GetName(), errs)
	}
	return nil
}

func (m *memory) admit(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc) error {
	if err := m.check(ctx, object); err != nil {
		return err
	}
	if validate == nil {
		return nil
	}
	return validate(ctx, object.DeepCopyObject())
}

func (m *memory) prepare(ctx context.Context, object runtime.Object) (metav1.Object, error) {
	accessor := must(object)
	namespace := ""
	if m.namespaced {
		namespace = genericrequest.NamespaceValue(ctx)
	}
	if err := rest.EnsureObjectNamespaceMatchesRequestNamespace(namespace, accessor); err != nil {
		return nil, err
	}
	if accessor.GetName() == "" && accessor.GetGenerateName() != "" {
		accessor.SetName(names.SimpleNameGenerator.GenerateName(accessor.GetGenerateName()))
	}
	if accessor.GetName() == "" {
		return nil, apierrors.NewInvalid(m.kind.GroupKind(), "", field.ErrorList{field.Required(field.NewPath("metadata", "name"), "name or generateName is required")})
	}
	rest.FillObjectMetaSystemFields(accessor)
	accessor.SetResourceVersion("")
	return accessor, nil
}

func (m *memory) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	accessor, err := m.prepare(ctx, object)
	if err != nil {
		return nil, err
	}
	if err := m.admit(ctx, object, validate); err != nil {
		return nil, err
	}
	at := m.keyOf(ctx, accessor.GetName())
	if options != nil && len(options.DryRun) > 0 {
		if m.read(at) != nil {
			return nil, apierrors.NewAlreadyExists(m.resource, accessor.GetName())
		}
		return object, nil
	}
	if !m.commit(at, "", object) {
		return nil, apierrors.NewAlreadyExists(m.resource, accessor.GetName())
	}
	return object, nil
}

func (m *memory) updateOnce(ctx context.Context, name string, old runtime.Object, info rest.UpdatedObjectInfo, validate rest.ValidateObjectUpdateFunc) (runtime.Object, error) {
	object, err := info.UpdatedObject(ctx, old.DeepCopyObject())
	if err != nil {
		return nil, err
	}
	accessor, before := must(object), must(old)
	if accessor.GetName() != name {
		return nil, apierrors.NewBadRequest("the name of the object does not match the name on the URL")
	}
	if version := accessor.GetResourceVersion(); version != "" && version != before.GetResourceVersion() {
		return nil, apierrors.NewConflict(m.resource, name, fmt.Errorf("the object has been modified"))
	}
	accessor.SetNamespace(before.GetNamespace())
	accessor.SetUID(before.GetUID())
	accessor.SetCreationTimestamp(before.GetCreationTimestamp())
	if err := m.check(ctx, object); err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject(), old.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	return object, nil
}

func (m *memory) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, forceAllowCreate bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	dry := options != nil && len(options.DryRun) > 0
	for range writeTries {
		old := m.read(m.keyOf(ctx, name))
		if old == nil {
			if !forceAllowCreate && !m.createOnPut {
				return nil, false, apierrors.NewNotFound(m.resource, name)
			}
			object, err := info.UpdatedObject(ctx, m.newObject())
			if err != nil {
				return nil, false, err
			}
			created, err := m.Create(ctx, object, createValidation, &metav1.CreateOptions{DryRun: dryRun(dry)})
			return created, err == nil, err
		}
		object, err := m.updateOnce(ctx, name, old, info, updateValidation)
		if err != nil {
			return nil, false, err
		}
		if dry || m.commit(m.keyOf(ctx, name), must(old).GetResourceVersion(), object) {
			return object, false, nil
		}
	}
	return nil, false, apierrors.NewConflict(m.resource, name, fmt.Errorf("written too often at once"))
}

func dryRun(dry bool) []string {
	if dry {
		return []string{metav1.DryRunAll}
	}
	return nil
}

func (m *memory) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	object, err := m.Get(ctx, name, nil)
	if err != nil {
		return nil, false, err
	}
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, false, err
		}
	}
	if options != nil && len(options.DryRun) > 0 {
		return object, true, nil
	}
	if !m.commit(m.keyOf(ctx, name), must(object).GetResourceVersion(), nil) {
		return nil, false, apierrors.NewConflict(m.resource, name, fmt.Errorf("the object has been modified"))
	}
	return object, true, nil
}

func (m *memory) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions, listOptions *internalversion.ListOptions) (runtime.Object, error) {
	list, err := m.List(ctx, listOptions)
	if err != nil {
		return nil, err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if _, _, err := m.Delete(ctx, must(item).GetName(), validate, options); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return list, nil
}

// part is a subresource that is written as the whole object is: what a strategy would keep of the old one is not tried here.
type part struct{ whole *memory }

var _ rest.Patcher = &part{}

func (p *part) New() runtime.Object { return p.whole.New() }
func (p *part) Destroy()            {}

func (p *part) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return p.whole.Get(ctx, name, options)
}

func (p *part) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, createValidation rest.ValidateObjectFunc,
	updateValidation rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return p.whole.Update(ctx, name, info, createValidation, updateValidation, false, options)
}
