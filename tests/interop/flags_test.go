package interop

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"basalt/tests/interop/harness"
)

// flagCase sets a flag to something else than its default, in one of these ways.
type flagCase struct {
	// effect observes what it does.
	effect func(*testing.T)
	// refused is a value that stops the start: a named difference from etcd.
	refused string
	// ignored is a value that is accepted with a warning, since it tunes what does not exist here.
	ignored string
	// invalid is a value that both refuse with exit code 1, where nothing else can be observed of the flag.
	invalid string
	// unknown says that etcd's help names it, and its command line does not know it.
	unknown bool
}

// flagCases has every flag of etcd's help, and ours.
var flagCases = map[string]flagCase{
	"name": {effect: observeName}, "data-dir": {effect: observeDataDir}, "wal-dir": {effect: observeWalDir},
	"snapshot-count":                {ignored: "5"},
	"snapshot-catchup-entries":      {effect: observeCatchupEntries},
	"heartbeat-interval":            {invalid: "300"},
	"election-timeout":              {effect: observeElectionTimeout},
	"initial-election-tick-advance": {effect: observeElectionTickAdvance},
	"listen-peer-urls":              {invalid: "http://example.org:1"},
	"listen-client-urls":            {effect: observeListenClientURLs},
	"listen-client-http-urls":       {effect: observeListenClientHTTPURLs},
	"max-snapshots":                 {ignored: "1"},
	"max-wals":                      {ignored: "1"},
	"memory-mlock":                  {effect: observeMemoryLock},
	"quota-backend-bytes":           {effect: observeQuota},
	"backend-bbolt-freelist-type":   {ignored: "array"},
	"backend-batch-interval":        {ignored: "1s"},
	"backend-batch-limit":           {ignored: "1"},
	"max-txn-ops":                   {effect: observeMaxTxnOps},
	"max-request-bytes":             {effect: observeMaxRequestBytes},
	"max-concurrent-streams":        {effect: observeMaxConcurrentStreams},
	"grpc-keepalive-min-time":       {effect: observeKeepaliveMinTime},
	"grpc-keepalive-interval":       {effect: observeKeepalive},
	"grpc-keepalive-timeout":        {effect: observeKeepalive},
	"socket-reuse-port":             {effect: observeReusePort},
	"socket-reuse-address":          {effect: observeReuseAddress},
	"enable-grpc-gateway":           {effect: observeNoGateway},
	"raft-read-timeout":             {effect: observeRaftReadTimeout},
	"raft-write-timeout":            {effect: observeRaftWriteTimeout},
	"feature-gates":                 {effect: observeFeatureGates},
	"config-file":                   {effect: observeConfigFile},

	"initial-advertise-peer-urls": {effect: observePeerURLs}, "initial-cluster": {effect: observePeerURLs},
	"initial-cluster-state":              {effect: observeInitialClusterState},
	"initial-cluster-token":              {effect: observeInitialClusterToken},
	"advertise-client-urls":              {effect: observeAdvertisedURLs},
	"discovery":                          {unknown: true},
	"discovery-proxy":                    {unknown: true},
	"discovery-token":                    {invalid: "x"},
	"discovery-endpoints":                {invalid: "http://127.0.0.1:1"},
	"discovery-dial-timeout":             {effect: observeDiscoveryTimeouts},
	"discovery-request-timeout":          {effect: observeDiscoveryTimeouts},
	"discovery-keepalive-time":           {effect: observeDiscoveryKeepalive},
	"discovery-keepalive-timeout":        {effect: observeDiscoveryKeepalive},
	"discovery-insecure-transport":       {effect: observeSecureDiscovery},
	"discovery-insecure-skip-tls-verify": {effect: observeDiscoverySkipVerify},
	"discovery-cert":                     {effect: observeSecureDiscovery},
	"discovery-key":                      {effect: observeSecureDiscovery},
	"discovery-cacert":                   {effect: observeSecureDiscovery},
	"discovery-user":                     {effect: observeSecureDiscovery},
	"discovery-password":                 {effect: observeSecureDiscovery},
	"discovery-fallback":                 {invalid: "proxy"},
	"discovery-srv":                      {effect: observeSRV},
	"discovery-srv-name":                 {effect: observeSRV},
	"strict-reconfig-check":              {effect: observeStrictReconfigCheck},
	"pre-vote":                           {effect: observeNoPreVote},
	"auto-compaction-retention":          {effect: observeAutoCompaction},
	"auto-compaction-mode":               {effect: observeAutoCompaction},

	"cert-file": {effect: observeTLS}, "key-file": {effect: observeTLS}, "client-cert-auth": {effect: observeTLS},
	"trusted-ca-file":                   {effect: observeTLS},
	"client-cert-file":                  {effect: observeClientCertFile},
	"client-key-file":                   {effect: observeClientCertFile},
	"client-crl-file":                   {effect: observeRevokedCertificates},
	"client-cert-allowed-hostname":      {effect: observeClientCertAllowedHostname},
	"client-cert-allowed-cn":            {effect: observeClientCertAllowedCN},
	"auto-tls":                          {effect: observeAutoTLS},
	"peer-cert-file":                    {effect: observePeerFiles},
	"peer-key-file":                     {effect: observePeerFiles},
	"peer-trusted-ca-file":              {effect: observePeerFiles},
	"peer-client-cert-auth":             {effect: observePeerClientCertAuth},
	"peer-client-cert-file":             {effect: observePeerClientCertFile},
	"peer-client-key-file":              {effect: observePeerClientCertFile},
	"peer-cert-allowed-cn":              {effect: observePeerCertAllowedCN},
	"peer-cert-allowed-hostname":        {effect: observePeerCertAllowedHostname},
	"peer-auto-tls":                     {effect: observePeerAutoTLS},
	"self-signed-cert-validity":         {effect: observeSelfSignedValidity},
	"peer-crl-file":                     {effect: observePeerCrlFile},
	"peer-skip-client-san-verification": {effect: observeSkipClientSANVerification},
	"cipher-suites":                     {effect: observeCipherSuites},
	"cors":                              {effect: observeCORS},
	"host-whitelist":                    {effect: observeHostWhitelist},
	"tls-min-version":                   {effect: observeTLSVersions},
	"tls-max-version":                   {effect: observeTLSVersions},

	"auth-token":     {effect: observeAuthToken},
	"bcrypt-cost":    {effect: observeBcryptCost},
	"auth-token-ttl": {effect: observeAuthTokenTTL},

	"enable-pprof":        {effect: observeProfiles},
	"metrics":             {effect: observeExtensiveMetrics},
	"listen-metrics-urls": {effect: observeMetricsURLs},

	"logger":                         {ignored: "other"},
	"log-outputs":                    {effect: observeLogOutputs},
	"log-level":                      {effect: observeLogLevel},
	"log-format":                     {effect: observeLogFormat},
	"enable-log-rotation":            {effect: observeLogRotation},
	"log-rotation-config-json":       {effect: observeLogRotation},
	"warning-unary-request-duration": {effect: observeSlowRequests},

	"enable-distributed-tracing":        {effect: observeTraces},
	"distributed-tracing-address":       {effect: observeTraces},
	"distributed-tracing-service-name":  {effect: observeTraces},
	"distributed-tracing-instance-id":   {effect: observeTraces},
	"distributed-tracing-sampling-rate": {effect: observeTraces},

	"corrupt-check-time":                   {effect: observeCorruptCheckTime},
	"compact-hash-check-time":              {effect: observeCompactHashCheck},
	"compaction-batch-limit":               {effect: observeCompactionPace},
	"compaction-sleep-interval":            {effect: observeCompactionPace},
	"watch-progress-notify-interval":       {effect: observeWatchProgress},
	"warning-apply-duration":               {effect: observeSlowApply},
	"bootstrap-defrag-threshold-megabytes": {ignored: "1"},
	"max-learners":                         {effect: observeMaxLearners},
	"downgrade-check-time":                 {ignored: "1s"},

	"force-new-cluster": {effect: observeForceNewCluster},
	"unsafe-no-fsync":   {refused: "true"},

	"basalt-initial-shards": {effect: observeInitialShards},
	"basalt-memory-limit":   {effect: observeMemoryLimit},
	"v2-deprecation":        {ignored: "write-only"},
	"enable-v2":             {refused: "true"},
	"proxy":                 {refused: "on"},

	// Those of ignoredByEtcd.
	"cluster-active-size":     {ignored: "x"},
	"cluster-remove-delay":    {ignored: "x"},
	"cluster-sync-interval":   {ignored: "x"},
	"config":                  {ignored: "x"},
	"force":                   {ignored: "x"},
	"max-result-buffer":       {ignored: "x"},
	"max-retry-attempts":      {ignored: "x"},
	"peer-heartbeat-interval": {ignored: "x"},
	"peer-election-timeout":   {ignored: "x"},
	"retry-interval":          {ignored: "x"},
	"snapshot":                {ignored: "x"},
	"v":                       {ignored: "x"},
	"vv":                      {ignored: "x"},
	"test.coverprofile":       {ignored: "x"},
	"test.outputdir":          {ignored: "x"},
}

// TestEveryFlag sets each flag of the table.
func TestEveryFlag(t *testing.T) {
	t.Parallel()
	for _, name := range slices.Sorted(maps.Keys(flagCases)) {
		flag := flagCases[name]
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			own := flag.refused != "" || flag.ignored != "" || strings.HasPrefix(name, "basalt-")
			if own && harness.UnderTest(t) != harness.Basalt {
				t.Skip("a named difference of basalt's")
			}
			switch {
			case flag.effect != nil:
				flag.effect(t)
			case flag.refused != "":
				expectRefusedFlag(t, 1, "--"+name+" is refused: ", "--"+name+"="+flag.refused)
			case flag.invalid != "":
				expectRefusedFlag(t, 1, "--"+name, "--"+name+"="+flag.invalid)
			case flag.unknown:
				expectRefusedFlag(t, 2, "flag provided but not defined: -"+name, "--"+name+"=x")
				end := harness.RunToEnd(t, harness.Launch{Kind: harness.Etcd, Args: []string{"--" + name + "=x"}})
				if end.Code != 2 {
					t.Errorf("etcd knows it: exit %d", end.Code)
				}
			default:
				server := harness.StartUnderTest(t, "--"+name+"="+flag.ignored)
				if !server.LogContains("--" + name + " is ignored: ") {
					t.Error("no warning that it is ignored")
				}
				server.Etcdctl("put", "a", "1")
			}
		})
	}
}

var (
	ignoredList = regexp.MustCompile(`(?s)\n\tignored = \[\]string\{(.+?)\n\t\}`)
	quoted      = regexp.MustCompile(`"([^"]+)"`)
)

// ignoredByEtcd are the flags, most of its first releases, that etcd's command line takes without notice, as its source lists them.
func ignoredByEtcd(t *testing.T) []string {
	t.Helper()
	directory := must(exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "go.etcd.io/etcd/server/v3").Output())(t)
	source := must(os.ReadFile(filepath.Join(strings.TrimSpace(string(directory)), "etcdmain", "config.go")))(t)
	list := ignoredList.FindSubmatch(source)
	if list == nil {
		t.Fatal("etcd's source lists no ignored flags: looked for in the wrong place")
	}
	var names []string
	for _, match := range quoted.FindAllSubmatch(list[1], -1) {
		names = append(names, string(match[1]))
	}
	return names
}

// TestFlagsThatEtcdIgnores takes them bare and with any value, on the command line and in the environment; what follows a bare
// one is no value.
func TestFlagsThatEtcdIgnores(t *testing.T) {
	var args []string
	for n, name := range ignoredByEtcd(t) {
		if flagCases[name].ignored == "" {
			t.Errorf("--%s is in no case", name)
		}
		args = append(args, "--"+name+[]string{"", "=any thing", "="}[n%3])
	}
	server := harness.StartUnderTest(t, args...)
	server.Etcdctl("put", "a", "1")
	expectRefusedFlag(t, 1, `"x" is not a valid flag`, "--force", "x")
	end := harness.RunToEnd(t, harness.Launch{Args: newLine(t).args("--name=a"),
		Env: []string{"ETCD_FORCE=x", "ETCD_PEER_HEARTBEAT_INTERVAL=soon"}})
	expectRefused(t, end, 1, `couldn't find local name "a" in the initial cluster configuration`)
	if strings.Contains(end.Stdout+end.Stderr, "unrecognized environment variable") {
		t.Errorf("variables of ignored flags are unknown:\n%s", end.Stderr)
	}
}

// expectRefusedFlag ends the start with one line that says why.
func expectRefusedFlag(t *testing.T, code int, says string, args ...string) {
	t.Helper()
	expectRefused(t, harness.RunToEnd(t, harness.Launch{Args: args}), code, says)
}

var flagLine = regexp.MustCompile(`(?m)^ {2}--([a-z0-9.-]+)`)

func flagsInHelp(t *testing.T, kind harness.Kind) []string {
	t.Helper()
	end := harness.RunToEnd(t, harness.Launch{Kind: kind, Args: []string{"--help"}})
	var names []string
	for _, match := range flagLine.FindAllStringSubmatch(end.Stdout+end.Stderr, -1) {
		names = append(names, match[1])
	}
	if len(names) < 100 {
		t.Fatalf("the help of %s names %d flags only: exit %d", kind, len(names), end.Code)
	}
	return names
}

// TestNoFlagIsForgotten compares the table with what the programs themselves name.
func TestNoFlagIsForgotten(t *testing.T) {
	// In etcd's usage, not among its flags.
	known := []string{"config-file"}
	for _, kind := range []harness.Kind{harness.Etcd, harness.UnderTest(t)} {
		for _, name := range flagsInHelp(t, kind) {
			known = append(known, name)
			if _, ok := flagCases[name]; !ok && !strings.HasPrefix(name, "experimental-") {
				t.Errorf("--%s of %s is in no case", name, kind)
			}
		}
	}
	for name := range flagCases {
		if harness.UnderTest(t) == harness.Basalt && !slices.Contains(known, name) {
			t.Errorf("--%s is in nobody's help", name)
		}
	}
}
