package test

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"
)

// What deploy/ has a machine run is understood by this program: a flag that it does not know would be found out by an operator.
func TestDeployedCommands(t *testing.T) {
	t.Parallel()
	var commands [][]string
	unit, err := os.ReadFile("../deploy/systemd/millrace.service")
	require.NoError(t, err)
	for line := range strings.Lines(string(unit)) {
		if command, ok := strings.CutPrefix(strings.TrimSpace(line), "ExecStart="); ok {
			commands = append(commands, strings.Fields(command)[1:])
		}
	}
	dockerfile, err := os.ReadFile("../deploy/docker/Dockerfile")
	require.NoError(t, err)
	for line := range strings.Lines(string(dockerfile)) {
		from := strings.Index(line, "CMD [")
		if from < 0 {
			continue
		}
		var command []string
		require.NoError(t, json.Unmarshal([]byte(line[from+len("CMD "):]), &command), line)
		if command[0] == "/millrace" {
			command = command[1:]
		}
		commands = append(commands, command)
	}
	text, err := os.ReadFile("../deploy/docker/compose.yaml")
	require.NoError(t, err)
	var compose struct {
		Services map[string]struct {
			Command   []string
			DependsOn map[string]any `yaml:"depends_on"`
			Volumes   []string
		}
		Volumes map[string]any
	}
	require.NoError(t, yaml.Unmarshal(text, &compose))
	for name, s := range compose.Services {
		for other := range s.DependsOn {
			require.Contains(t, compose.Services, other, name)
		}
		for _, v := range s.Volumes {
			volume, _, _ := strings.Cut(v, ":")
			require.Contains(t, compose.Volumes, volume, name)
		}
	}
	commands = append(commands, compose.Services["millrace"].Command)
	require.Len(t, commands, 4)
	for _, command := range commands {
		out, err := exec.CommandContext(t.Context(), millrace, append(command, "--help")...).CombinedOutput() //nolint:gosec // the binary under test
		require.NoError(t, err, "%q: %s", command, out)
	}
}
