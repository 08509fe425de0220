package interop

import (
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// TestBasaltctlOverTLS asks a member that wants certificates, with the right ones and with what is wrong.
func TestBasaltctlOverTLS(t *testing.T) {
	needsBasaltctl(t)
	certificates := harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{TLS: certificates})
	endpoint := "--endpoints=" + server.Endpoint()
	trusted, shown := "--cacert="+certificates.Authority, []string{"--cert=" + certificates.ClientCert, "--key=" + certificates.ClientKey}
	rows := statusRows(t, append(shown, endpoint, trusted)...)
	if len(rows) != 1 {
		t.Fatalf("%d rows of one member: %v", len(rows), rows)
	}
	for _, row := range rows {
		if row.Role != "leader" || row.Endpoint != server.Endpoint() {
			t.Errorf("a member over TLS: %+v", row)
		}
	}
	other := harness.NewCertificates(t)
	for name, flags := range map[string][]string{
		"https needs":                    {endpoint},
		"no member answers":              {endpoint, trusted},
		"invalid peer certificate":       append([]string{endpoint, "--cacert=" + other.Authority}, shown...),
		"No such file":                   append([]string{endpoint, "--cacert=/nowhere"}, shown...),
		"--cert and --key belong":        {endpoint, trusted, shown[0]},
		"unknown command \"member all\"": {"member", "all"},
	} {
		args := append([]string{"status", "--command-timeout=5"}, flags...)
		if flags[0] == "member" {
			args = flags
		}
		if result := harness.Basaltctl(t, args...); result.Code == 0 || !strings.Contains(result.Stderr, name) {
			t.Errorf("basaltctl %s: exit %d %s, want %q", strings.Join(args, " "), result.Code, result.Stderr, name)
		}
	}
}
