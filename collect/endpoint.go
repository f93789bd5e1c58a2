package collect

import (
	"encoding/json"

	"millrace/caliper"
)

// endpoint is the configuration that GET answers. Both spellings of its members are in use.
func endpoint(cfg Config) []byte {
	kilobytes := cfg.MaxBody / 1000
	versions := caliper.SupportedVersions()
	extensions := []string{"http://purl.imsglobal.org/ctx/caliper/v1p1/ToolUseProfile-extension"}
	body, err := json.Marshal(map[string]any{
		"caliper_maximum_payload_size": kilobytes,
		"caliper_supported_versions":   versions,
		"caliper_supported_extensions": extensions,
		"caliperMaximumPayloadSize":    kilobytes,
		"caliperSupportedVersions":     versions,
		"caliperSupportedExtensions":   extensions,
	})
	if err != nil {
		panic(err) // only strings and a number went in
	}
	return body
}
