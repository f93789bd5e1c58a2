package test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

const (
	chart       = "../deploy/helm/millrace"
	containerAt = "spec.template.spec.containers.0."
)

// ofTheChart are settings that the chart says itself, as its Service, probes and volumes need them.
var ofTheChart = []string{"data-dir", "index-listen", "insecure-http", "listen", "log-listen", "tls-cert", "tls-key"}

// helmCases are values, or a file with them, and what has to come of them.
var helmCases = map[string]struct {
	values string
	kinds  []string          // besides StatefulSet and Service
	shown  map[string]string // settings as the program in the pod has them
}{
	"with TLS": {
		values: "tls: {secretName: millrace-tls}",
		shown:  map[string]string{"tls-cert": "/tls/tls.crt", "insecure-http": "false", "log-format": "json"},
	},
	"behind something with TLS, on a claim that is there, stopped": {
		values: `
insecureHttp: true
replicas: 0
persistence: {existingClaim: restored}
settings: {log-format: text}
fullnameOverride: etl`,
		shown: map[string]string{"tls-cert": "", "insecure-http": "true", "log-format": "text", "memory": "1500"},
	},
	"with all that there is": {
		values: `
image: {repository: registry.example.org/millrace, digest: "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"}
imagePullSecrets: [{name: registry}]
nameOverride: etl
tls: {secretName: "1234"} # a name that is a number to YAML
settings:
  anonymous: viewer
  brokers: [kafka-1:9092, kafka-2:9092]
  flush: 1m30s
  index-url: https://search.example.org
  lake: s3://district/millrace
  lake-catalog: https://catalogue.example.org
  lake-catalog-namespace: district
  lake-catalog-oauth2-server-uri: https://tokens.example.org
  lake-catalog-scope: all
  lake-catalog-warehouse: w
  log-format: text
  memory: 2000000 # Helm would print 2e+06
  prefix: /lms/events
  s3-endpoint: https://s3.example.org
  table-topics: true
  traces: http://127.0.0.1:4318
  traces-share: 0.25
secrets:
  s3-region: {name: bucket, key: region}
  AWS_ACCESS_KEY_ID: {name: bucket, key: id}
  AWS_SECRET_ACCESS_KEY: {name: bucket, key: secret}
  MILLRACE_LAKE_TOKEN: {name: catalogue, key: token}
env: [{name: SSL_CERT_FILE, value: /ca/ca.crt}]
persistence: {size: 100Gi, storageClass: fast, accessMode: ReadWriteOncePod, annotations: {a: b}}
resources: {limits: {memory: 4Gi}}
startupSeconds: 61
updateStrategy: OnDelete
service: {type: LoadBalancer, port: 443, annotations: {a: b}}
ingress: {enabled: true, className: nginx, host: millrace.example.org, tlsSecretName: cert, annotations: {nginx.ingress.kubernetes.io/backend-protocol: HTTPS}}
serviceMonitor: {enabled: true, labels: {release: prometheus}, token: {name: scraper}, tlsConfig: {serverName: millrace.example.org}}
networkPolicy:
  enabled: true
  from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress}}}]
  egress: [{ports: [{port: 53, protocol: UDP}]}]
serviceAccountName: bucket
podAnnotations: {a: b}
podLabels: {a: b}
nodeSelector: {a: b}
tolerations: [{key: a, operator: Exists}]
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}
priorityClassName: high
extraVolumes: [{name: ca, configMap: {name: ca}}]
extraVolumeMounts: [{name: ca, mountPath: /ca}]`,
		kinds: []string{"Ingress", "NetworkPolicy", "ServiceMonitor"},
		shown: map[string]string{
			"anonymous": "viewer", "brokers": "[kafka-1:9092,kafka-2:9092]", "flush": "1m30s", "index-url": "https://search.example.org", "memory": "2000000",
			"prefix": "/lms/events", "table-topics": "true", "traces-share": "0.25", "s3-region": "region of bucket", "AWS_ACCESS_KEY_ID": "(set)",
		},
	},
	"of docs/install.md": {
		values: "@../docs/examples/kubernetes.yaml",
		kinds:  []string{"Ingress"},
		shown:  map[string]string{"memory": "1200", "index-url": "url of elasticsearch", "insecure-http": "true"},
	},
}

// TestHelmChart renders the chart as Helm does, and asks Kubernetes' schemas, the program and the other files of deploy/ what they think of it.
func TestHelmChart(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	for name, c := range helmCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, objects := render(t, c.values)
			kinds := append([]string{"StatefulSet", "Service"}, c.kinds...)
			require.Len(t, objects, len(kinds), "%s", text)
			for _, kind := range kinds {
				require.Contains(t, objects, kind)
			}
			lint, err := helm(t, c.values, "lint", "--strict", chart)
			require.NoError(t, err)
			require.NotRegexp(t, `\[(WARNING|ERROR)\]`, lint)
			validate(t, text)
			notesAreTrue(t, c.values, objects)
			settingsAreKnown(t, objects["StatefulSet"], c.shown)
			podIsOfTheImage(t, objects["StatefulSet"])
			volumesAreThere(t, objects["StatefulSet"])
			portsMatch(t, objects)
		})
	}
}

// validate holds objects to the schemas of the oldest Kubernetes that the chart takes, and of the newest that there are schemas of.
func validate(t *testing.T, objects string) {
	t.Helper()
	for _, version := range []string{"1.25.0", "1.37.0"} {
		cmd := exec.CommandContext(t.Context(), deployTool(t, "kubeconform"), "-strict", "-skip", "ServiceMonitor", //nolint:gosec // a tool of CI
			"-schema-location", deployTool(t, "kubernetes-json-schema/v"+version+"-local-strict/{{.ResourceKind}}{{.KindSuffix}}.json"))
		cmd.Stdin = strings.NewReader(objects)
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "Kubernetes %s: %s", version, out)
	}
}

// notesAreTrue looks at what helm install says: the pod's name, and commands that the program knows.
func notesAreTrue(t *testing.T, values string, objects map[string]any) {
	t.Helper()
	text, err := helm(t, values, "install", "release", chart, "--dry-run=client")
	require.NoError(t, err)
	_, notes, _ := strings.Cut(text, "\nNOTES:\n")
	set := objects["StatefulSet"]
	pod := at[string](t, set, "metadata.name") + "-0"
	require.Contains(t, notes, " runs as "+pod+" in namespace default.")
	commands := regexp.MustCompile(` exec (\S+) -- /millrace (.+)`).FindAllStringSubmatch(notes, -1)
	require.Len(t, commands, 2*at[int](t, set, "spec.replicas"), "%s", notes)
	for _, command := range commands {
		require.Equal(t, pod, command[1])
		out, err := exec.CommandContext(t.Context(), millrace, append(strings.Fields(command[2]), "--help")...).CombinedOutput() //nolint:gosec // the binary under test
		require.NoError(t, err, "%s", out)
	}
}

// settingsAreKnown runs the program with the variables of the container and no others: each must be one that it takes something from.
func settingsAreKnown(t *testing.T, set any, want map[string]string) {
	t.Helper()
	env := environment(t, set)
	shown, from := map[string]string{}, map[string]bool{}
	for _, s := range configShow(t, env) {
		shown[s.Name], from[s.Origin] = s.Value, true
	}
	for _, v := range env {
		name, _, _ := strings.Cut(v, "=")
		require.True(t, from[name] || !strings.HasPrefix(name, "MILLRACE_"), "%s is no setting", name)
	}
	for name, value := range want {
		require.Equal(t, value, shown[name], name)
	}
	out, err := exec.CommandContext(t.Context(), millrace, append(at[[]string](t, set, containerAt+"args"), "--help")...).CombinedOutput() //nolint:gosec // the binary under test
	require.NoError(t, err, "%s", out)
}

// podIsOfTheImage compares a pod with what deploy/docker and deploy/systemd say of the same program.
func podIsOfTheImage(t *testing.T, set any) {
	t.Helper()
	text, err := os.ReadFile("../deploy/docker/Dockerfile")
	require.NoError(t, err)
	dockerfile, env := string(text), environment(t, set)
	dataDir := regexp.MustCompile(`(?m)^ENV (MILLRACE_DATA_DIR=\S+)$`).FindStringSubmatch(dockerfile)
	require.NotNil(t, dataDir)
	require.Contains(t, env, dataDir[1])
	port := at[int](t, set, containerAt+"ports.0.containerPort")
	require.Contains(t, dockerfile, fmt.Sprintf("\nEXPOSE %d\n", port))
	require.Contains(t, env, fmt.Sprintf("MILLRACE_LISTEN=:%d", port))

	const security = "spec.template.spec.securityContext."
	user, group := at[int](t, set, security+"runAsUser"), at[int](t, set, security+"runAsGroup")
	require.Contains(t, dockerfile, fmt.Sprintf("\nUSER %d:%d\n", user, group))
	require.Equal(t, group, at[int](t, set, security+"fsGroup"), "else the volume is not the program's")
	require.True(t, at[bool](t, set, security+"runAsNonRoot"))
	require.True(t, at[bool](t, set, containerAt+"securityContext.readOnlyRootFilesystem"))
	require.False(t, at[bool](t, set, "spec.template.spec.enableServiceLinks"))

	unit, err := os.ReadFile("../deploy/systemd/millrace.service")
	require.NoError(t, err)
	stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindSubmatch(unit)
	require.NotNil(t, stop)
	seconds, err := strconv.Atoi(string(stop[1]))
	require.NoError(t, err)
	require.GreaterOrEqual(t, at[int](t, set, "spec.template.spec.terminationGracePeriodSeconds"), seconds)
}

// volumesAreThere: what is mounted is a volume, and the paths that settings name, and /tmp, are in one that is mounted.
func volumesAreThere(t *testing.T, set any) {
	t.Helper()
	type named struct{ Name string }
	volumes := map[string]bool{}
	for _, v := range at[[]named](t, set, "spec.template.spec.volumes") {
		volumes[v.Name] = true
	}
	for _, v := range at[[]struct{ Metadata named }](t, set, "spec.volumeClaimTemplates") {
		volumes[v.Metadata.Name] = true
	}
	var mounted []string
	for _, m := range at[[]struct {
		Name string
		Path string `yaml:"mountPath"`
	}](t, set, containerAt+"volumeMounts") {
		require.Contains(t, volumes, m.Name)
		mounted = append(mounted, m.Path)
		delete(volumes, m.Name)
	}
	require.Empty(t, volumes, "not mounted")
	require.Contains(t, mounted, "/tmp")
	for _, v := range environment(t, set) {
		if _, path, _ := strings.Cut(v, "="); strings.HasPrefix(v, "MILLRACE_") && filepath.IsAbs(path) && !strings.HasPrefix(v, "MILLRACE_PREFIX=") {
			require.Contains(t, mounted, filepath.Dir(path), v)
		}
	}
}

// portsMatch: all that leads to the pod, leads there.
func portsMatch(t *testing.T, objects map[string]any) {
	t.Helper()
	set, service := objects["StatefulSet"], objects["Service"]
	require.Equal(t, at[string](t, service, "metadata.name"), at[string](t, set, "spec.serviceName"))
	labels := at[map[string]string](t, set, "spec.template.metadata.labels")
	require.Subset(t, labels, at[map[string]string](t, set, "spec.selector.matchLabels"))
	require.Subset(t, labels, at[map[string]string](t, service, "spec.selector"))
	ofPod, ofService := at[string](t, set, containerAt+"ports.0.name"), at[string](t, service, "spec.ports.0.name")
	require.Equal(t, ofPod, at[string](t, service, "spec.ports.0.targetPort"))
	for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
		require.Equal(t, ofPod, at[string](t, set, containerAt+probe+".httpGet.port"))
	}
	if ingress := objects["Ingress"]; ingress != nil {
		const backend = "spec.rules.0.http.paths.0.backend.service."
		require.Equal(t, at[string](t, service, "metadata.name"), at[string](t, ingress, backend+"name"))
		require.Equal(t, ofService, at[string](t, ingress, backend+"port.name"))
		require.Equal(t, at[string](t, ingress, "spec.rules.0.host"), at[string](t, ingress, "spec.tls.0.hosts.0"))
	}
	if policy := objects["NetworkPolicy"]; policy != nil {
		require.Subset(t, labels, at[map[string]string](t, policy, "spec.podSelector.matchLabels"))
		require.Equal(t, ofPod, at[string](t, policy, "spec.ingress.0.ports.0.port"))
	}
	if monitor := objects["ServiceMonitor"]; monitor != nil {
		require.Subset(t, at[map[string]string](t, service, "metadata.labels"), at[map[string]string](t, monitor, "spec.selector.matchLabels"))
		require.Equal(t, ofService, at[string](t, monitor, "spec.endpoints.0.port"))
		require.Equal(t, "/metrics", at[string](t, monitor, "spec.endpoints.0.path"))
	}
}

// TestHelmServes starts the program as the pod does, but for its addresses and folders, and asks what Kubernetes asks it.
func TestHelmServes(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	for name, values := range map[string]string{"with TLS": "tls: {secretName: cert}", "behind something with TLS": "insecureHttp: true"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, objects := render(t, values)
			set, dir := objects["StatefulSet"], t.TempDir()
			env := append(environment(t, set), "MILLRACE_LISTEN=127.0.0.1:0", "MILLRACE_LOG_LISTEN=127.0.0.1:0", "MILLRACE_INDEX_LISTEN=127.0.0.1:0",
				"MILLRACE_DATA_DIR="+filepath.Join(dir, "data"))
			if slices.Contains(env, "MILLRACE_TLS_CERT=/tls/tls.crt") {
				secret(t, dir)
				env = append(env, "MILLRACE_TLS_CERT="+filepath.Join(dir, "tls.crt"), "MILLRACE_TLS_KEY="+filepath.Join(dir, "tls.key"))
			}
			s, addresses, err := startWith(dir, env, at[[]string](t, set, containerAt+"args")...)
			require.NoError(t, err)
			t.Cleanup(func() { _ = s.cmd.Process.Kill() }) // it may have ended

			// A kubelet looks at no certificate.
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} //nolint:gosec // as it says
			defer client.CloseIdleConnections()
			_, host, _ := strings.Cut(addresses[0], "://")
			for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
				get := containerAt + probe + ".httpGet."
				res, err := client.Get(strings.ToLower(at[string](t, set, get+"scheme")) + "://" + host + at[string](t, set, get+"path"))
				require.NoError(t, err, probe)
				require.NoError(t, res.Body.Close())
				require.Equal(t, http.StatusOK, res.StatusCode, probe)
			}
			s.interrupt(t)
		})
	}
}

// secret puts files into a folder as the mount of a Secret of type kubernetes.io/tls has them.
func secret(t *testing.T, dir string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
	server.Close()
	cert := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(t, err)
	for name, block := range map[string]*pem.Block{"tls.crt": {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, "tls.key": {Type: "PRIVATE KEY", Bytes: key}} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600))
	}
}

// TestHelmRefuses: a value that is wrong is named.
func TestHelmRefuses(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	for values, want := range map[string]string{
		"setings: {}":                              `additional properties 'setings' not allowed`,
		"settings: {memmory: 600}":                 `'/settings'.*additional properties 'memmory' not allowed`,
		"settings: {listen: \"0.0.0.0:1\"}":        `'/settings'.*additional properties 'listen' not allowed`,
		"settings: {memory: 599}":                  `'/settings/memory'.*minimum: got 599, want 600`,
		"settings: {memory: 600 MB}":               `'/settings/memory'.*got string, want integer`,
		"settings: {flush: soon}":                  `'/settings/flush'.*'soon' does not match pattern`,
		"settings: {anonymous: admin}":             `'/settings/anonymous'.*must be one of 'none', 'viewer', 'analyst'`,
		"settings: {brokers: kafka-1:9092}":        `'/settings/brokers'.*got string, want array`,
		"settings: {lake: /data/lake}":             `'/settings/lake'.*does not match pattern`,
		"settings: {traces-share: 2}":              `'/settings/traces-share'.*maximum: got 2, want 1`,
		"replicas: 2":                              `'/replicas'.*maximum: got 2, want 1`,
		"terminationGracePeriodSeconds: 30":        `'/terminationGracePeriodSeconds'.*minimum: got 30, want 45`,
		"secrets: {LAKE_TOKEN: {name: a, key: b}}": `'/secrets'.*additional properties 'LAKE_TOKEN' not allowed`,
		"secrets: {index-url: {name: a}}":          `'/secrets/index-url'.*missing property 'key'`,
		"image: {tag: latest, digest: abc}":        `'/image/digest'.*'abc' does not match pattern`,
		"ingress: {enabled: true}":                 `'/ingress/host'.*minLength: got 0, want 1`,
		"ingress: {hosts: [a]}":                    `'/ingress'.*additional properties 'hosts' not allowed`,
		"networkPolicy: {enabled: true, from: []}": `'/networkPolicy/from'.*minItems: got 0, want 1`,

		// What goes together.
		"insecureHttp: false":     `give tls.secretName, or insecureHttp=true`,
		"tls: {secretName: cert}": `insecureHttp says that the program has no TLS: leave it out, or tls.secretName`,
		"{settings: {index-url: \"http://a\"}, secrets: {index-url: {name: a, key: b}}}": `index-url is in settings and in secrets`,
		"env: [{name: MILLRACE_LISTEN, value: \"0.0.0.0:1\"}]":                           `MILLRACE_LISTEN is in env: settings are said in settings, or in secrets`,
		"serviceMonitor: {enabled: true}":                                                `give serviceMonitor.token.name, or settings.anonymous=viewer`,
	} {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			args := []string{"release", chart}
			if !strings.HasPrefix(values, "insecureHttp") {
				args = append(args, "--set", "insecureHttp=true")
			}
			out, err := helm(t, values, "template", args...)
			require.Error(t, err, "%s", out)
			require.Regexp(t, want, err.Error())
		})
	}
}

// TestHelmValues compares the schema of the chart's values with the values and with the program. It needs no Helm.
func TestHelmValues(t *testing.T) {
	t.Parallel()
	lookAtSources(t)
	text, err := os.ReadFile(chart + "/values.schema.json")
	require.NoError(t, err)
	var schema, values any
	require.NoError(t, json.Unmarshal(text, &schema))
	text, err = os.ReadFile(chart + "/values.yaml")
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &values))
	sameValues(t, "values", schema, values)

	var settings, secrets []string
	for _, s := range configShow(t, nil) {
		if !slices.Contains(ofTheChart, s.Name) && s.Name != "context" { // which is what commands ask, and none of serve's
			settings = append(settings, s.Name)
		}
	}
	require.ElementsMatch(t, settings, keys(at[map[string]any](t, schema, "properties.settings.properties")))
	doc, err := os.ReadFile("../docs/configuration.md")
	require.NoError(t, err)
	for _, m := range regexp.MustCompile("(?m)^\\| `([A-Z_]+)` \\|").FindAllSubmatch(doc, -1) {
		if name := string(m[1]); name != "MILLRACE_TOKEN" { // which commands show
			secrets = append(secrets, name)
		}
	}
	require.ElementsMatch(t, append(secrets, settings...), keys(at[map[string]any](t, schema, "properties.secrets.properties")))

	// One less than the least memory that the chart takes is what the program refuses with that number.
	least := at[int](t, schema, "properties.settings.properties.memory.minimum")
	out, err := exec.CommandContext(t.Context(), millrace, "serve", "--data-dir", t.TempDir(), "--memory", strconv.Itoa(least-1)).CombinedOutput() //nolint:gosec // the binary under test
	require.Error(t, err)
	require.Contains(t, string(out), fmt.Sprintf("want %d MB or more", least))
}

// sameValues: an object of the chart's own has the values that its schema knows, but for those that are left out, and no others are taken.
func sameValues(t *testing.T, path string, schema, values any) {
	t.Helper()
	properties := at[map[string]any](t, schema, "properties")
	of, ok := values.(map[string]any)
	if properties == nil || !ok {
		return
	}
	require.False(t, schema.(map[string]any)["additionalProperties"].(bool), path)
	for name, value := range of {
		require.Contains(t, properties, name, path)
		sameValues(t, path+"."+name, properties[name], value)
	}
	if len(of) > 0 {
		delete(properties, "global") // what Helm itself gives to charts in charts
		require.ElementsMatch(t, keys(properties), keys(of), path)
	}
}

// deployTool is the path of something that scripts/deploytools.sh installs.
func deployTool(t *testing.T, name string) string {
	t.Helper()
	dir := os.Getenv("MILLRACE_DEPLOY_TOOLS")
	if dir == "" {
		t.Skip("MILLRACE_DEPLOY_TOOLS is not set: it is the folder into which scripts/deploytools.sh has installed Helm, kubeconform and Kubernetes' schemas")
	}
	return filepath.Join(dir, name)
}

// helm runs Helm on values, or a file with them, without anything of whoever runs the tests.
func helm(t *testing.T, values, command string, args ...string) (string, error) {
	t.Helper()
	file, ok := strings.CutPrefix(values, "@")
	if !ok {
		file = "-"
	}
	cmd := exec.CommandContext(t.Context(), deployTool(t, "helm"), append([]string{command, "--values", file}, args...)...) //nolint:gosec // a tool of CI
	cmd.Stdin = strings.NewReader(values)
	cmd.Env = []string{"HOME=" + t.TempDir()}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("helm %s: %w: %s%s", command, err, &stderr, out)
	}
	return string(out), err
}

// render returns what the chart with these values is for Kubernetes, as text and by kind.
func render(t *testing.T, values string) (string, map[string]any) {
	t.Helper()
	text, err := helm(t, values, "template", "release", chart)
	require.NoError(t, err)
	objects := map[string]any{}
	docs := yaml.NewDecoder(strings.NewReader(text))
	for {
		var o any
		err := docs.Decode(&o)
		if errors.Is(err, io.EOF) {
			return text, objects
		}
		require.NoError(t, err, "%s", text)
		objects[at[string](t, o, "kind")] = o
	}
}

// environment is what the variables of a pod are, in the form of os/exec. A Secret's value says what it is of.
func environment(t *testing.T, set any) []string {
	t.Helper()
	var env []string
	for _, v := range at[[]struct {
		Name, Value string
		From        struct {
			Secret struct{ Name, Key string } `yaml:"secretKeyRef"`
		} `yaml:"valueFrom"`
	}](t, set, containerAt+"env") {
		if s := v.From.Secret; s.Name != "" {
			v.Value = s.Key + " of " + s.Name
		}
		env = append(env, v.Name+"="+v.Value)
	}
	return env
}

type shownSetting struct{ Name, Value, Origin string }

// configShow is what the program says of its settings with these variables, and no others.
func configShow(t *testing.T, env []string) []shownSetting {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), millrace, "config", "show", "-o", "json") //nolint:gosec // the binary under test
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{}, env...) // nil would be that of the tests
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var all []shownSetting
	require.NoError(t, json.Unmarshal(out, &all))
	return all
}

// at is what a document has at a path of keys and indices, as a T; the zero value when it is not there.
func at[T any](t *testing.T, document any, path string) T {
	t.Helper()
	for _, key := range strings.Split(path, ".") {
		switch of := document.(type) {
		case map[string]any:
			document = of[key]
		case []any:
			i, err := strconv.Atoi(key)
			require.NoError(t, err, path)
			require.Less(t, i, len(of), path)
			document = of[i]
		default:
			document = nil
		}
	}
	var value T
	if document == nil {
		return value
	}
	text, err := yaml.Marshal(document)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &value), "%s: %s", path, text)
	return value
}

func keys(m map[string]any) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	return names
}
