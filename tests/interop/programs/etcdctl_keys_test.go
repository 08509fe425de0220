package programs

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"basalt/tests/interop/harness"
)

func tryKeys(t *testing.T) {
	script := []step{
		{args: []string{"put", "fruit/a", "one apple"}},
		{line: "put fruit/b", stdin: "from standard input"},
		{args: []string{"put", "--", "fruit/dash", "-1"}},
		{args: []string{"put", "\x01\x02", "\xff\xfe"}},
	}
	script = append(script, lines(`
		put fruit/c 3 -w json
		put fruit/c 4 --prev-kv
		put fruit/c --ignore-value
		put fruit/c --ignore-value --prev-kv -w fields
		put absent --ignore-value
		put absent x --ignore-lease
		put fruit/c 5 --ignore-lease
		put leased x --lease=1234
		put leased x --lease=nonsense
		put
		put a b c
	`)...)
	script = append(script, inAllFormats("put fruit/d 1 --prev-kv", putMessage)...)
	for _, get := range []string{
		"get fruit/a", "get absent", "get fruit/ --prefix", "get fruit/ --prefix --keys-only", "get fruit/ --prefix --count-only",
		"get fruit/b --from-key --limit=2", "get fruit/ --prefix --sort-by=MODIFY --order=DESCEND",
	} {
		script = append(script, inAllFormats(get, rangeMessage)...)
	}
	script = append(script, step{args: []string{"get", "\x01", "--prefix"}}, step{args: []string{"get", "", "--prefix", "--hex"}})
	script = append(script, lines(`
		get fruit/a fruit/c
		get fruit/ --prefix --consistency=s
		get fruit/ --prefix --consistency=l --print-value-only
		get fruit/ --prefix --consistency=x
		get fruit/ --prefix --sort-by=CREATE
		get fruit/ --prefix --sort-by=KEY --order=ASCEND
		get fruit/ --prefix --sort-by=VALUE --order=DESCEND
		get fruit/ --prefix --sort-by=VERSION --order=ASCEND
		get fruit/ --prefix --sort-by=NOTHING
		get fruit/ --prefix --order=SIDEWAYS
		get fruit/ --prefix --min-mod-rev=4 --max-mod-rev=7
		get fruit/ --prefix --min-create-rev=3 --max-create-rev=6
		get fruit/c --rev=6
		get fruit/c --rev=9999
		get fruit/c --rev=-1
		get fruit/c --prefix --from-key
		get a b c
		get --keepalive-time=5s --keepalive-timeout=5s --max-recv-bytes=10000 --max-request-bytes=10000 fruit/a
		get --max-recv-bytes=8 fruit/a
		get --debug=false fruit/a
		get --insecure-transport fruit/a
	`)...)
	script = append(script, inAllFormats("get fruit/ --prefix --stream", rangeMessage)...)
	script = append(script, lines(`
		get fruit/ --prefix --stream --limit=2
		get fruit/ --prefix --stream --rev=5
		get fruit/ --prefix --stream --rev=9999
		get absent --stream
	`)...)

	txn := "value(\"fruit/a\") = \"one apple\"\nmod(\"fruit/b\") > \"1\"\ncreate(\"absent2\") = \"0\"\nver(\"fruit/a\") < \"5\"\n\n" +
		"put txn/a 1\nput txn/b \"two words\"\nget txn/ --prefix\ndel txn/a --prev-kv\nget fruit/ --prefix --keys-only\n\nput never x\n\n"
	failing := "mod(\"fruit/a\") = \"0\"\n\nput never x\n\nget fruit/a\ndel --prefix txn/\n\n"
	for _, input := range []string{txn, failing} {
		for _, format := range []string{"simple", "json", "fields", "table"} {
			script = append(script, step{line: "txn -w " + format, stdin: input})
		}
		script = append(script, step{line: "txn -w protobuf", stdin: input, message: txnMessage}, step{line: "txn -i", stdin: input},
			step{line: "txn --interactive", stdin: input})
	}
	script = append(script,
		step{line: "txn", stdin: "\nput a 1\nput a 2\n\n\n"},
		step{line: "txn", stdin: "\nput a 1\ndel a\n\n\n"},
		step{line: "txn", stdin: "\nput a 1\n\n"},
		step{line: "txn", stdin: "nonsense\n\n\n\n"},
	)

	for _, del := range []string{"del fruit/b --prev-kv", "del fruit/b", "del absent --prev-kv"} {
		script = append(script, inAllFormats(del, deleteMessage)...)
	}
	script = append(script, lines(`
		del fruit/a fruit/b --range --prev-kv
		del fruit/a fruit/b
		del fruit/ --prefix --from-key
		put z/1 1
		del z/ --from-key --prev-kv
		compaction 4
		compaction 4
		compaction 6 --physical
		compaction 99999
		compaction nonsense
		get fruit/c --rev=5
		get fruit/c --rev=6
		endpoint hashkv --rev=6
		endpoint hashkv --rev=8 -w json
		endpoint hashkv
		endpoint hashkv --rev=9999
		endpoint hashkv --rev=3
		del fruit/ --prefix
	`)...)
	script = append(script, step{args: []string{"del", "", "--from-key"}}, step{args: []string{"get", "", "--from-key", "-w", "json"}})
	sideBySide(t, slices.Concat(script, lines("put again 1\nget again -w json")))
}

func tryLeases(t *testing.T) {
	script := []step{{line: "lease grant 5000", keep: "lease"}}
	// One key: etcd names several in no order.
	script = append(script, lines(`
		put leased/b 2
		put leased/a 1 --lease=$lease
		put leased/a 3 --ignore-lease
		lease timetolive $lease
		lease timetolive $lease --keys
		lease timetolive $lease --keys -w json
		lease timetolive $lease --keys -w fields
		lease timetolive $lease --keys -w table
		lease list
		lease list -w json
		lease list -w fields
		lease list -w table
		lease keep-alive --once $lease
		lease keep-alive --once $lease -w json
		lease keep-alive --once $lease -w fields
		lease keep-alive --once 1234
		lease timetolive 1234
		lease timetolive nonsense
		lease grant nonsense
		lease grant -- 9000000001
		lease revoke 1234
		get leased/ --prefix -w json
		get leased/ --prefix -w fields
		get leased/ --prefix -w table
	`)...)
	script = append(script, lines(`
		lease revoke $lease -w json
		lease revoke $lease
		lease timetolive $lease
		lease list
		get leased/ --prefix
	`)...)
	for n, ttl := range []string{"1", "700", "0", "-1"} {
		name := string(rune('p' + n))
		script = append(script, step{line: "lease grant -- " + ttl, keep: name}, step{line: "lease revoke $" + name})
	}
	sideBySide(t, script)
}

func tryMaintenance(t *testing.T) {
	script := lines(`
		put a 1
		put a 2
		endpoint health
		endpoint health -w json
		endpoint health -w table
		endpoint health -w fields
		endpoint health -w protobuf
		endpoint health --cluster
		endpoint status
		endpoint status -w json
		endpoint status -w table
		endpoint status -w fields
		endpoint status -w protobuf
		endpoint status --cluster
		endpoint hashkv
		endpoint hashkv -w json
		endpoint hashkv -w table
		endpoint hashkv -w fields
		endpoint hashkv -w protobuf
		endpoint hashkv --cluster --rev=2
		alarm list -w table
		alarm disarm
		alarm disarm -w json
		defrag
		defrag --cluster
		member list -w table
		member list -w simple --consistency=s
		member list --consistency=l
		member list -w fields
		member list -w json
		member list --hex -w json
		member remove 1234
		member remove nonsense
		member promote 1234
		member promote $member
		member update 1234 --peer-urls=http://127.0.0.1:1
		member update $member --peer-urls=nonsense
		member update $member
		member remove $member
		member add one
		member add one --peer-urls=nonsense
		member add one --peer-urls=$peer
		move-leader 1234
		move-leader $member
		move-leader nonsense
		downgrade validate 3.7
		downgrade validate 3.6
		downgrade validate 3.5
		downgrade validate nonsense
		downgrade cancel
	`)
	script = append(script, inAllFormats("alarm list", alarmMessage)...)
	script = append(script, step{line: "member list -w protobuf", message: memberMessage})
	script = append(script, step{line: "compaction 2 -w protobuf"})
	sideBySide(t, script)
}

// tryAlarms: what a member says and refuses while it has no space.
func tryAlarms(t *testing.T) {
	script := slices.Concat(inAllFormats("alarm list", alarmMessage), lines(`
		put a 1
		get a
		del a
		lease grant 100
		compaction 1
		endpoint health
		endpoint status
		endpoint status -w json
		endpoint status -w fields
		alarm disarm
		alarm disarm
		alarm list
		endpoint health
		put a 1
	`))
	raiseAlarm := func(server *harness.Server) *harness.Server {
		put(t, server, "before", "1")
		conn, ctx := server.Conn(t), harness.Context(t, waitMax)
		status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		raise := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE, MemberID: status.Header.MemberId}
		if _, err := pb.NewMaintenanceClient(conn).Alarm(ctx, raise); err != nil {
			t.Fatal(err)
		}
		return server
	}
	sideBySideThrough(t, script, raiseAlarm)
}
