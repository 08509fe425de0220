package differential

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// hostileKeys stand at the edges of byte order, of shards, and of what text tools expect.
var hostileKeys = [][]byte{
	{0}, {0, 0}, {0xff}, {0xff, 0xff}, {0xff, 0}, []byte("a"), []byte("a\x00"), []byte("a\x00\x00"), []byte("a\x01"),
	[]byte("b"), []byte("/"), []byte("/registry"), []byte("/registry/"), []byte("/registry\xff"), []byte("/registry0"),
	[]byte("/registry/event"), []byte("/registry/events"), []byte("/registry/events\x00"), []byte("/registry/events/"),
	[]byte("/registry/events/\x00"), []byte("/registry/events/\xff"), []byte("/registry/events0"),
	[]byte("/registry/leases"), []byte("/registry/leases/"), []byte("/registry/leases0"), []byte("/registry/lease\xff"),
	[]byte("/registry/masterleases"), []byte("/registry/masterleases/"), []byte("/registry/masterleases0"),
	[]byte("compact_rev_key"), []byte("\xc3\x28 not utf-8"), []byte("line\nbreak\ttab \"quote\""),
	bytes.Repeat([]byte("long/"), 400),
}

// resources give the keys that Kubernetes writes, in all shards of the default map and beside them.
var resources = []string{
	"/registry/events/default/", "/registry/events/kube-system/", "/registry/leases/kube-node-lease/",
	"/registry/leases/default/", "/registry/masterleases/", "/registry/pods/default/", "/registry/minions/",
	"/registry/example.com/widgets/default/", "/registry/lease/", "/registry/eventz/",
}

// edges are ends and starts of ranges that straddle shards.
var edges = [][]byte{
	[]byte("/registry/"), []byte("/registry0"), []byte("/registry/e"), []byte("/registry/events"),
	[]byte("/registry/events/"), []byte("/registry/events/kube"), []byte("/registry/events0"), []byte("/registry/f"),
	[]byte("/registry/leases"), []byte("/registry/leases/"), []byte("/registry/leases/kube"), []byte("/registry/leases0"),
	[]byte("/registry/m"), []byte("/registry/masterleases/"), []byte("/registry/masterleases/1"),
	[]byte("/registry/masterleases0"), []byte("/registry/minions0"), []byte("/registry/pods/"), []byte("0"), {1}, {0xff},
}

// borders are the keys at both sides of every border of every map in shardMaps: the slash-less key of a prefix, the
// prefix itself, its neighbours, and the first key above it.
func borders() [][]byte {
	var keys [][]byte
	for _, shards := range slices.Sorted(maps.Keys(shardMaps)) {
		for spec := range strings.SplitSeq(shardMaps[shards], ";") {
			_, list, _ := strings.Cut(spec, "=")
			for prefix := range strings.SplitSeq(list, ",") {
				if prefix == "" {
					continue
				}
				bare := strings.TrimSuffix(prefix, "/")
				for _, key := range []string{
					bare[:len(bare)-1], bare, bare + "\x00", bare + ".", prefix, prefix + "\x00", prefix + "a/b", prefix + "\xff", bare + "0",
				} {
					if key != "" {
						keys = append(keys, []byte(key))
					}
				}
			}
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	return slices.CompactFunc(keys, bytes.Equal)
}

// keyPool is small enough that requests meet each other's keys.
func keyPool() [][]byte {
	pool := slices.Concat(hostileKeys, borders())
	for _, resource := range resources {
		for n := range 4 {
			pool = append(pool, fmt.Appendf(nil, "%sn%d", resource, n))
		}
	}
	return pool
}

func (g *Generator) key() []byte {
	if g.chance(1, 150) {
		return nil
	}
	return g.keys[g.random.IntN(len(g.keys))]
}

// interval gives key and range_end; for somebody, one that does not end before it begins (notAsked).
func (g *Generator) interval() (key, end []byte) {
	key, end = g.anyInterval()
	if g.asSomebody && len(end) > 0 && !bytes.Equal(end, []byte{0}) && bytes.Compare(end, key) < 0 {
		return end, key
	}
	return key, end
}

// anyInterval gives a single key, a prefix, everything from a key, all, between edges, or nonsense.
func (g *Generator) anyInterval() (key, end []byte) {
	key = g.key()
	switch g.random.IntN(16) {
	case 0, 1, 2, 3, 4:
		return key, nil
	case 5, 6, 7:
		resource := resources[g.random.IntN(len(resources))]
		return []byte(resource), []byte(clientv3.GetPrefixRangeEnd(resource))
	case 8:
		return key, []byte{0}
	case 9:
		return []byte{0}, []byte{0}
	case 10:
		return key, append(slices.Clone(key), 0)
	case 11:
		return key, g.key()
	case 12:
		return []byte("/registry/"), []byte("/registry0")
	default:
		first, second := pick(g.random, edges), pick(g.random, edges)
		if g.chance(1, 2) {
			first, second = g.key(), g.key()
		}
		if bytes.Compare(first, second) > 0 && !g.chance(1, 20) {
			first, second = second, first
		}
		return first, second
	}
}

func (g *Generator) value() []byte {
	switch g.random.IntN(40) {
	case 0:
		return nil
	case 1:
		return []byte{0}
	case 2:
		return []byte("\xff\xfe not utf-8 \x00")
	case 3:
		return bytes.Repeat([]byte{byte('a' + g.random.IntN(26))}, 1<<10)
	case 4:
		if g.chance(1, 24) {
			return bytes.Repeat([]byte("big "), 25_000)
		}
		fallthrough
	default:
		return fmt.Appendf(nil, "v%d", g.random.IntN(40))
	}
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }
