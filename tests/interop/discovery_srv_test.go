package interop

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"basalt/tests/interop/harness"
)

// zone answers for a domain: SRV records by name, and all hosts by the loopback.
type zone struct {
	services map[string][]dnsmessage.SRVResource
	hosts    map[string]bool
}

// serve answers over UDP at the address until the test ends.
func (z zone) serve(t *testing.T, address string) {
	t.Helper()
	socket, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Skipf("no DNS server of the test's own at %s, which needs root: %v", address, err)
	}
	t.Cleanup(func() { socket.Close() })
	go func() {
		buffer := make([]byte, 4096)
		for {
			count, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			if answer, err := z.answer(buffer[:count]); err == nil {
				_, _ = socket.WriteTo(answer, from)
			}
		}
	}()
}

func (z zone) answer(query []byte) ([]byte, error) {
	var asked dnsmessage.Message
	if err := asked.Unpack(query); err != nil || len(asked.Questions) != 1 {
		return nil, fmt.Errorf("no question: %v", err)
	}
	question := asked.Questions[0]
	name := strings.ToLower(question.Name.String())
	answer := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: asked.ID, Response: true, Authoritative: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: asked.Questions,
	}
	add := func(body dnsmessage.ResourceBody) {
		header := dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 1}
		answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: header, Body: body})
	}
	records, isService := z.services[name]
	switch {
	case isService && question.Type == dnsmessage.TypeSRV:
		for _, record := range records {
			add(&record)
		}
	case z.hosts[name] && question.Type == dnsmessage.TypeA:
		add(&dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}})
	case !isService && !z.hosts[name]:
		answer.RCode = dnsmessage.RCodeNameError
	}
	return answer.Pack()
}

// asking is a wrapper whose process sees a /etc/resolv.conf of its own that names this server.
func asking(t *testing.T, nameserver string) []string {
	t.Helper()
	settings := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(settings, []byte("nameserver "+nameserver+"\noptions timeout:5 attempts:3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"unshare", "--mount", "--", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, settings}
}

// nameserver is an address of the loopback that no other test of this process or another serves DNS at.
func nameserver(t *testing.T) string {
	port := harness.FreePort(t)
	return fmt.Sprintf("127.53.%d.%d", port>>8, port&0xff)
}

// observeSRV: members of each kind find each other by the records of a domain, under the same ids, with a suffix too; one that
// the records do not list is refused.
func observeSRV(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a mount namespace with a /etc/resolv.conf of its own, and a DNS server at port 53")
	}
	address := nameserver(t)
	for _, suffix := range []string{"", "-green"} {
		founders := newFounders(t, "f0.example.test", "f1.example.test", "f2.example.test")
		own := zone{services: map[string][]dnsmessage.SRVResource{}, hosts: map[string]bool{}}
		var records []dnsmessage.SRVResource
		for n, founder := range founders {
			host := fmt.Sprintf("f%d.example.test.", n)
			own.hosts[host] = true
			var port uint16
			if _, err := fmt.Sscan(founder.peerPort(), &port); err != nil {
				t.Fatal(err)
			}
			records = append(records, dnsmessage.SRVResource{Priority: 1, Weight: 10, Port: port, Target: dnsmessage.MustNewName(host)})
		}
		own.services["_etcd-server"+suffix+"._tcp.example.test."] = records
		listener := strings.Replace(address, "127.53.", map[string]string{"": "127.53.", "-green": "127.54."}[suffix], 1)
		own.serve(t, listener+":53")
		wrapper := asking(t, listener)
		discovery := []string{"--discovery-srv=example.test", "--initial-cluster-token=by-dns", "--discovery-srv-name=" + strings.TrimPrefix(suffix, "-")}
		clusters := map[harness.Kind]foundedCluster{}
		for _, kind := range kindsSideBySide(t) {
			// The last one advertises an address, which leads where its record does.
			byAddress := append([]founder{}, founders...)
			byAddress[2].peer = "http://127.0.0.1:" + founders[2].peerPort()
			var members []*harness.Server
			clusters[kind], members = foundCluster(t, kind, byAddress, wrapper, discovery...)
			for _, member := range members {
				member.Kill()
			}
			stranger := newFounders(t, "127.0.0.1")[0].startLater(t, kind, wrapper, discovery...)
			if code := stranger.AwaitExit(); code != 1 || !stranger.LogContains("cannot find local etcd member") {
				t.Errorf("%s: a member that no record lists ends with %d", kind, code)
			}
		}
		expectSame(t, clusters)
	}
}

func TestDiscoverySRV(t *testing.T) { observeSRV(t) }
