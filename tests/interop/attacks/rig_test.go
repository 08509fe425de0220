package attacks

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"basalt/tests/interop/harness"
)

const (
	mib = 1 << 20
	// memoryMax is how much larger a server may become by an attack (faults.md, row 29).
	memoryMax = 64 * mib
	// logBytesMax is how much a server may log of an attack, whatever strangers try: the first lines of each kind.
	logBytesMax = 64 << 10
	// coresMax is how much of a core an attack may cost.
	coresMax = 0.5
	// goodPause lies between two calls of a good caller; there are goodCallers of them.
	goodPause   = 8 * time.Millisecond
	goodCallers = 4
	// tries is how often an attack that cost too much CPU time is made: on a busy machine the same work takes more of it,
	// and what a server does too much it does each time.
	tries = 3
)

// attack is one row of the table.
type attack struct {
	name string
	// args, tls and wrapper are of the server.
	args    []string
	tls     bool
	wrapper []string
	// probes attacks the port of --listen-metrics-urls.
	probes bool
	// prepare runs before anything is measured.
	prepare func(t *testing.T, s *scene)
	// run attacks until done, for as long as `s.lasts()` or until it has got what it wanted.
	run func(t *testing.T, s *scene)
	// after looks at the server when all is over.
	after func(t *testing.T, s *scene)
	// cores is how much of a core it may cost; 0 means coresMax, a negative number that it is honest work.
	cores float64
	// memory is how much it may take; 0 means memoryMax.
	memory int64
}

// scene is a server under attack, with a good client beside.
type scene struct {
	server *harness.Server
	certs  *harness.Certificates
	// user is as whom the good client comes; empty where nobody is asked.
	user, password string
	// probes is the address of --listen-metrics-urls, where that is attacked.
	probes string
	start  time.Time
	length time.Duration
	// wantsCut says that a flood goes on until somebody was sent away, also on a busy machine.
	wantsCut bool
	// cuts counts connections that were sent away by a GOAWAY, closes those that were ended in any way.
	cuts, closes atomic.Int64
}

// figures says that this is a run for ./figures: longer, and without any judgement, for etcd has other bounds.
func figures() bool { return os.Getenv("ATTACKS") == "figures" }

// judged says whether the bounds are those of the server under test.
func judged(t *testing.T) bool { return harness.UnderTest(t) == harness.Basalt }

func lengths() (calm, attacked time.Duration) {
	if figures() {
		return 5 * time.Second, 10 * time.Second
	}
	return 500 * time.Millisecond, 1500 * time.Millisecond
}

// lasts says whether the attack is to go on.
func (s *scene) lasts() bool { return time.Since(s.start) < s.length }

func runAttacks(t *testing.T, attacks []attack) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) { a.perform(t) })
	}
}

func (a attack) perform(t *testing.T) {
	limit := cmpOr(a.cores, coresMax)
	for range tries {
		cores := a.attempt(t)
		if !judged(t) || t.Failed() || limit < 0 || cores <= limit {
			return
		}
		t.Logf("the attack cost %.2f cores, at most %.2f are allowed", cores, limit)
	}
	t.Errorf("the attack cost too much CPU time %d times", tries)
}

// scene starts a server for the attack.
func (a attack) scene(t *testing.T) *scene {
	// What is basalt's alone, etcd does not know.
	args := slices.DeleteFunc(slices.Clone(a.args), func(arg string) bool {
		return !judged(t) && strings.HasPrefix(arg, "--basalt-")
	})
	options := harness.Options{Args: args, Wrapper: a.wrapper}
	s := &scene{wantsCut: judged(t)}
	if a.probes {
		s.probes = fmt.Sprintf("127.0.0.1:%d", harness.FreePort(t))
		options.Args = append(options.Args, "--listen-metrics-urls=http://"+s.probes)
	}
	if a.tls {
		s.certs = harness.NewCertificates(t)
		options.TLS = s.certs
	}
	s.server = harness.Start(t, options)
	if a.prepare != nil {
		a.prepare(t, s)
	}
	return s
}

// attempt makes the attack on a new server and gives what it cost, in cores.
func (a attack) attempt(t *testing.T) (cores float64) {
	s := a.scene(t)
	calmLength, attackLength := lengths()
	good := startGood(t, s)
	// The first calls open connections and fill caches.
	time.Sleep(300 * time.Millisecond)
	good.take()
	calmCPU, calmStart := s.server.CPU(), time.Now()
	time.Sleep(calmLength)
	calmCores := coresOf(s.server.CPU()-calmCPU, time.Since(calmStart))
	calm := good.take()
	var elsewhere []time.Duration
	if figures() {
		// What the attacker's own work does to everybody on the same cores.
		other := a.scene(t)
		other.start, other.length = time.Now(), attackLength
		a.run(t, other)
		elsewhere = good.take()
		other.server.Kill()
		time.Sleep(300 * time.Millisecond)
		good.take()
	}

	s.server.ForgetPeakMemory()
	memory, cpu, logged := s.server.Memory(), s.server.CPU(), s.server.LogBytes()
	s.start, s.length = time.Now(), attackLength
	a.run(t, s)
	cores = coresOf(s.server.CPU()-cpu, time.Since(s.start)) - calmCores
	attacked := good.take()
	grown := s.server.PeakMemory() - memory

	logged = s.server.LogBytes() - logged

	t.Logf("| %s | %d MiB | %.2f cores | %d sent away, %d closed | %.2f ms calm, %.2f ms beside, %.2f ms attacked | %d good calls | %d bytes logged |",
		a.name, grown/mib, cores, s.cuts.Load(), s.closes.Load(), p99(calm), p99(elsewhere), p99(attacked), len(attacked), logged)
	good.stop(t)
	if a.after != nil && judged(t) {
		a.after(t, s)
	}
	if !judged(t) {
		return cores
	}
	if limit := cmpOr(a.memory, memoryMax); grown > limit {
		t.Errorf("the server took %d MiB more, at most %d are allowed", grown/mib, limit/mib)
	}
	if logged > logBytesMax {
		t.Errorf("the server logged %d bytes, at most %d are allowed", logged, logBytesMax)
	}
	if len(attacked) == 0 {
		t.Error("no call of the good client was answered meanwhile")
	}
	return cores
}

func cmpOr[T int64 | float64](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

func coresOf(cpu, wall time.Duration) float64 { return cpu.Seconds() / wall.Seconds() }

// goodClient puts and gets for as long as it is let.
type goodClient struct {
	cancel context.CancelFunc
	group  sync.WaitGroup
	mutex  sync.Mutex
	took   []time.Duration
	failed error
}

func startGood(t *testing.T, s *scene) *goodClient {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	good, client := &goodClient{cancel: cancel}, s.server.ClientAs(t, s.user, s.password)
	t.Cleanup(cancel)
	for caller := range goodCallers {
		key := fmt.Sprintf("good/%d", caller)
		good.group.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				began := time.Now()
				err := goodCall(ctx, client, key, n)
				if ctx.Err() != nil {
					return
				}
				good.mutex.Lock()
				good.took = append(good.took, time.Since(began))
				if err != nil && good.failed == nil {
					good.failed = err
				}
				good.mutex.Unlock()
				time.Sleep(goodPause)
			}
		})
	}
	return good
}

func goodCall(ctx context.Context, client *clientv3.Client, key string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	value := fmt.Sprint(n / 2)
	if n%2 == 0 {
		_, err := client.Put(ctx, key, value)
		return err
	}
	got, err := client.Get(ctx, key)
	if err == nil && (len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value) {
		return fmt.Errorf("%s is %v, want %s", key, got.Kvs, value)
	}
	return err
}

// take gives the latencies since the last time.
func (g *goodClient) take() []time.Duration {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	took := g.took
	g.took = nil
	return took
}

// stop ends the client and fails the test if any of its calls failed.
func (g *goodClient) stop(t *testing.T) {
	t.Helper()
	g.cancel()
	g.group.Wait()
	if g.failed != nil && judged(t) {
		t.Errorf("a call of the good client: %v", g.failed)
	}
}

// p99 in milliseconds.
func p99(took []time.Duration) float64 {
	if len(took) == 0 {
		return 0
	}
	slices.Sort(took)
	return took[(len(took)-1)*99/100].Seconds() * 1000
}
