package programs

import (
	"slices"
	"testing"

	"basalt/tests/interop/harness"
)

func tryAuthentication(t *testing.T) {
	script := slices.Concat(lines(`
		role add reader
		role add reader
		role add writer -w json
		role grant-permission reader read a
		role grant-permission reader read a c
		role grant-permission reader read d/ --prefix
		role grant-permission writer readwrite x --from-key
		role grant-permission writer write w -w json
		role grant-permission writer nonsense w
		role grant-permission nobody read w
		role grant-permission reader read z a
	`), inAllFormats("role get reader", roleMessage), inAllFormats("role get writer", roleMessage), inAllFormats("role list", rolesMessage), lines(`
		role get nobody
		role get root
		role revoke-permission reader a
		role revoke-permission reader a
		role revoke-permission reader a c
		role revoke-permission reader d/ --prefix
		role revoke-permission writer x --from-key
		role revoke-permission nobody x
		role grant-permission reader read a z
		user add ann:word
		user add ann:word
		user add ben --new-user-password=secret
		user add cert --no-password
		user add root:secret -w json
		user add empty:
		user add :word
	`), []step{
		{line: "user add dan --interactive=false", stdin: "typed\n"},
		{line: "user add eve --interactive=false", stdin: ""},
		{line: "user passwd dan --interactive=false", stdin: "anew\n"},
		{line: "user passwd nobody --interactive=false", stdin: "anew\n"},
	}, lines(`
		user grant-role ann reader
		user grant-role ann writer -w json
		user grant-role ann nobody
		user grant-role nobody reader
		user grant-role root root
	`), inAllFormats("user get ann", userMessage), inAllFormats("user list", usersMessage), lines(`
		user get ann --detail
		user get root --detail
		user get nobody
		user get nobody --detail
		user revoke-role ann writer
		user revoke-role ann writer
		user revoke-role nobody writer
		auth status
		auth status -w json
		auth disable
		auth enable
		auth enable
		get a
		--user=root:secret auth status
	`), inAllFormats("--user=root:secret auth status", statusMessage), lines(`
		--user=root:secret put a 1
		--user=root:secret put z 1
		--user=ann:word get a
		--user=ann --password=word get a
		--user=ann:wrong get a
		--user=nobody:word get a
		--user=cert: get a
		--user=ann:word get z
		--user=ann:word get a zz
		--user=ann:word put a 2
		--user=ann:word del a
		--user=ann:word user list
		--user=ann:word user get ann
		--user=ann:word user get root
		--user=ann:word role get reader
		--user=ann:word role get writer
		--user=ann:word role list
		--user=ann:word member list
		--user=ann:word endpoint health
		--user=ann:word compaction 2
		--user=ann:word defrag
		--user=ann:word endpoint hashkv
		--user=ann:word alarm list
		--user=ann:word lease list
		--user=ann:word auth disable
		--user=ann:word snapshot save /nonexistent/file
		--user=dan:anew get a
		--user=root:secret user delete root
		--user=root:secret role delete root
		--user=root:secret user delete dan
		--user=root:secret user delete dan
		--user=root:secret role delete writer
		--user=root:secret role delete writer
		--user=root:secret role delete reader
		--user=ann:word get a
		--user=root:secret user get ann
		--user=root:secret endpoint health
		--user=root:secret member list --consistency=s
		--user=root:secret auth disable
		auth status
		get a
	`))
	sideBySide(t, script, "--bcrypt-cost=4")
}

// tryTokens gives a token that somebody else has signed.
func tryTokens(t *testing.T) {
	keys := harness.NewCertificates(t)
	server := harness.StartUnderTest(t, "--bcrypt-cost=4", "--auth-token=jwt,sign-method=ES256,priv-key="+keys.ServerKey+",pub-key="+keys.ServerCert+",ttl=10m")
	for _, args := range [][]string{
		{"user", "add", "root:secret"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"},
	} {
		server.Etcdctl(args...)
	}
	token := tokenOf(t, server, "root", "secret")
	server.Etcdctl("--auth-jwt-token="+token, "put", "a", "1")
	expectText(t, "get", server.Etcdctl("--auth-jwt-token="+token, "get", "a"), "a", "1")
	if refused := server.EtcdctlResult("", "--auth-jwt-token="+token+"x", "get", "a"); refused.Code == 0 {
		t.Errorf("a token that was changed: %+v", refused)
	}
}

func tryTLS(t *testing.T) {
	certificates := harness.NewCertificates(t)
	server := harness.Start(t, harness.Options{TLS: certificates})
	flags := []string{"--cacert=" + certificates.Authority, "--cert=" + certificates.ClientCert, "--key=" + certificates.ClientKey}
	for _, more := range [][]string{nil, {"--insecure-skip-tls-verify"}, {"--insecure-transport=false"}} {
		line := slices.Concat(flags, more, []string{"--endpoints=" + server.Endpoint(), "--dial-timeout=20s", "--command-timeout=20s"})
		server.Etcdctl(append(line, "put", "a", "1")...)
		expectText(t, "get", server.Etcdctl(append(line, "get", "a")...), "a", "1")
		server.Etcdctl(append(line, "endpoint", "health")...)
		server.Etcdctl(append(line, "endpoint", "status")...)
		server.Etcdctl(append(line, "endpoint", "hashkv")...)
	}
}
