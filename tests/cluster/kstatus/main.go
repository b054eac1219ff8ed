// Command kstatus says how GitOps tools judge objects: a JSON object or list from standard input, one line of JSON for
// each object on standard output.
//
//	kstatus flux              the status that sigs.k8s.io/cli-utils computes, which Flux waits for
//	kstatus argocd FILE       the health that Argo CD computes, with the Lua scripts in this ConfigMap
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// verdict is one line of output.
type verdict struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	Message   string `json:"message"`
}

type judge func(*unstructured.Unstructured) (status, message string, err error)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kstatus:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	var judge judge
	switch {
	case len(args) == 1 && args[0] == "flux":
		judge = flux
	case len(args) == 2 && args[0] == "argocd":
		scripts, err := readScripts(args[1])
		if err != nil {
			return err
		}
		judge = scripts.judge
	default:
		return errors.New("usage: kstatus flux | kstatus argocd FILE")
	}
	content, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	objects, err := read(content)
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(out)
	for i := range objects {
		object := &objects[i]
		status, message, err := judge(object)
		if err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
		line := verdict{object.GetKind(), object.GetNamespace(), object.GetName(), status, message}
		if err := encoder.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func read(content []byte) ([]unstructured.Unstructured, error) {
	// Not encoding/json, which would make floats of generations.
	object, _, err := unstructured.UnstructuredJSONScheme.Decode(content, nil, nil)
	if err != nil {
		return nil, err
	}
	switch object := object.(type) {
	case *unstructured.UnstructuredList:
		return object.Items, nil
	case *unstructured.Unstructured:
		return []unstructured.Unstructured{*object}, nil
	default:
		return nil, fmt.Errorf("neither an object nor a list: %T", object)
	}
}

func flux(object *unstructured.Unstructured) (string, string, error) {
	result, err := status.Compute(object)
	if err != nil {
		return "", "", err
	}
	return result.Status.String(), result.Message, nil
}

const scriptPrefix = "resource.customizations.health."

// scripts are the Lua scripts by group_Kind.
type scripts map[string]string

func readScripts(path string) (scripts, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var configMap struct {
		Data map[string]string `json:"data"`
	}
	if err := yaml.Unmarshal(content, &configMap); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	found := scripts{}
	for key, script := range configMap.Data {
		if len(key) > len(scriptPrefix) && key[:len(scriptPrefix)] == scriptPrefix {
			found[key[len(scriptPrefix):]] = script
		}
	}
	return found, nil
}

// judge does what Argo CD does: an object that is being deleted is never shown to the script, and a script has no
// library but base, package and table.
func (s scripts) judge(object *unstructured.Unstructured) (string, string, error) {
	if object.GetDeletionTimestamp() != nil {
		return "Progressing", "Pending deletion", nil
	}
	kind := object.GroupVersionKind()
	script, ok := s[kind.Group+"_"+kind.Kind]
	if !ok {
		return "", "", fmt.Errorf("no key %s%s_%s in the ConfigMap", scriptPrefix, kind.Group, kind.Kind)
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return "", "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	state.SetContext(ctx)
	state.SetGlobal("obj", toLua(state, object.Object))
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	result, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return "", "", fmt.Errorf("the script returned no table but a %s", state.Get(-1).Type())
	}
	health := state.GetField(result, "status").String()
	switch health {
	case "Unknown", "Progressing", "Suspended", "Healthy", "Degraded", "Missing":
		return health, lua.LVAsString(state.GetField(result, "message")), nil
	default:
		return "", "", fmt.Errorf("%q is not a health that Argo CD knows", health)
	}
}

func toLua(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case string:
		return lua.LString(value)
	case int64:
		return lua.LNumber(value)
	case float64:
		return lua.LNumber(value)
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			table.Append(toLua(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for key, item := range value {
			table.RawSetString(key, toLua(state, item))
		}
		return table
	default:
		return lua.LNil
	}
}
