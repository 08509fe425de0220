package load

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	mvccpb "go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"basalt/tests/chaos/history"
	"basalt/tests/chaos/rig"
)

// draw chooses the next call with everything in it.
func (l *Load) draw(random *rand.Rand) func(context.Context, *rig.Member) {
	key := hotKey(random.IntN(hotKeys))
	if random.IntN(3) == 0 {
		key = fmt.Sprintf("k/cold-%03d", random.IntN(coldKeys))
	}
	switch at := random.IntN(100); {
	case at < 30:
		return l.write(nil, l.put(key))
	case at < 36:
		return l.write(nil, history.Change{Key: key, Delete: true})
	case at < 46:
		l.mutex.Lock()
		condition := &history.Compare{Key: key, Mod: l.newest[key]}
		l.mutex.Unlock()
		return l.write(condition, l.put(key))
	case at < 50:
		other := hotKey(random.IntN(hotKeys))
		changes := []history.Change{l.put(fmt.Sprintf("k/cold-%03d", random.IntN(coldKeys))), {Key: other, Delete: true}}
		if key != other && key != changes[0].Key {
			changes = append(changes, l.put(key))
		}
		return l.write(nil, changes...)
	case at < 70:
		return l.read(key, "", false, 0)
	case at < 75:
		return l.read("k/hot-", "k/hot.", false, 0)
	case at < 85:
		return l.read(key, "", true, 0)
	case at < 90:
		return l.read("k/hot-", "k/hot.", true, 0)
	case at < 93:
		return l.read("k/", "k0", true, 0)
	default:
		back := int64(random.IntN(kept / 4))
		return l.read("k/hot-", "k/hot.", at < 96, max(l.record.First, l.told.Load()-back))
	}
}

// put is a change with a value of its own.
func (l *Load) put(key string) history.Change {
	return history.Change{Key: key, Value: l.Value(l.options.ValueBytes)}
}

func (l *Load) write(condition *history.Compare, changes ...history.Change) func(context.Context, *rig.Member) {
	return func(ctx context.Context, member *rig.Member) { l.Write(ctx, member, condition, changes...) }
}

func (l *Load) read(key, end string, serializable bool, at int64) func(context.Context, *rig.Member) {
	return func(ctx context.Context, member *rig.Member) {
		_, _ = l.Read(ctx, member, key, end, serializable, at)
	}
}

// Put is a put of a value of its own that is written down.
func (l *Load) Put(ctx context.Context, member *rig.Member, key string) *history.Write {
	return l.Write(ctx, member, nil, l.put(key))
}

// Write does it and writes it down.
func (l *Load) Write(ctx context.Context, member *rig.Member, condition *history.Compare, changes ...history.Change) *history.Write {
	write := &history.Write{Member: member.Number, Call: l.Now(), Return: history.Never, If: condition, Changes: changes}
	life := member.Life()
	header, err := l.send(ctx, member, write)
	if err == nil {
		write.Life = sameLife(member, life)
		write.Return, write.Outcome, write.Revision = l.Now(), history.Acknowledged, header.Revision
		l.know(header.Revision)
	} else {
		write.Error = err.Error()
		if refused(err) {
			write.Outcome = history.Refused
		}
	}
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if write.Changed() {
		for _, change := range changes {
			l.newest[change.Key] = header.Revision
			if change.Delete {
				l.newest[change.Key] = 0
			}
		}
	}
	l.record.Writes = append(l.record.Writes, write)
	return write
}

func (l *Load) send(ctx context.Context, member *rig.Member, write *history.Write) (*pb.ResponseHeader, error) {
	client := pb.NewKVClient(member.Conn())
	if write.If == nil && len(write.Changes) == 1 {
		write.Succeeded = true
		change := write.Changes[0]
		if change.Delete {
			answer, err := client.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(change.Key)})
			write.Deleted = answer.GetDeleted()
			return answer.GetHeader(), err
		}
		answer, err := client.Put(ctx, &pb.PutRequest{Key: []byte(change.Key), Value: []byte(change.Value), Lease: change.LeaseID})
		return answer.GetHeader(), err
	}
	txn := &pb.TxnRequest{}
	if write.If != nil {
		txn.Compare = []*pb.Compare{{
			Key: []byte(write.If.Key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_ModRevision{ModRevision: write.If.Mod},
		}}
		txn.Failure = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(write.If.Key)}}}}
	}
	for _, change := range write.Changes {
		op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{
			Key: []byte(change.Key), Value: []byte(change.Value), Lease: change.LeaseID,
		}}}
		if change.Delete {
			op.Request = &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(change.Key)}}
		}
		txn.Success = append(txn.Success, op)
	}
	answer, err := client.Txn(ctx, txn)
	if err != nil {
		return nil, err
	}
	write.Succeeded = answer.Succeeded
	for _, response := range answer.Responses {
		write.Deleted += response.GetResponseDeleteRange().GetDeleted()
		for _, kv := range response.GetResponseRange().GetKvs() {
			l.mutex.Lock()
			l.newest[string(kv.Key)] = kv.ModRevision
			l.mutex.Unlock()
		}
	}
	if !answer.Succeeded && len(answer.Responses) == 1 && len(answer.Responses[0].GetResponseRange().GetKvs()) == 0 {
		l.mutex.Lock()
		l.newest[write.If.Key] = 0
		l.mutex.Unlock()
	}
	return answer.Header, nil
}

// refused says whether an error promises that the call had no effect.
func refused(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.ResourceExhausted, codes.FailedPrecondition, codes.PermissionDenied, codes.NotFound:
		return true
	}
	return false
}

// Read does it and writes it down if it is answered.
func (l *Load) Read(ctx context.Context, member *rig.Member, key, end string, serializable bool, at int64) (*history.Read, error) {
	read := &history.Read{Member: member.Number, Call: l.Now(), Serializable: serializable, Key: key, End: end, At: at}
	life := member.Life()
	answer, err := pb.NewKVClient(member.Conn()).Range(ctx, &pb.RangeRequest{
		Key: []byte(key), RangeEnd: []byte(end), Serializable: serializable, Revision: at,
	})
	if err != nil {
		return nil, err
	}
	read.Life = sameLife(member, life)
	read.Return, read.Revision, read.Count = l.Now(), answer.Header.Revision, answer.Count
	for _, kv := range answer.Kvs {
		read.KVs = append(read.KVs, keyValue(kv))
	}
	l.know(read.Revision)
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if end == "" && !serializable && at == 0 {
		l.newest[key] = 0
		if len(read.KVs) == 1 {
			l.newest[key] = read.KVs[0].Mod
		}
	}
	l.record.Reads = append(l.record.Reads, read)
	return read, nil
}

// whole reads the store until that succeeds, without writing it down.
func (l *Load) whole(member *rig.Member, serializable bool, patience time.Duration) (*history.Read, error) {
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		answer, err := pb.NewKVClient(member.Conn()).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: serializable})
		cancel()
		if err == nil {
			read := &history.Read{Member: member.Number, Revision: answer.Header.Revision, Count: answer.Count}
			for _, kv := range answer.Kvs {
				read.KVs = append(read.KVs, keyValue(kv))
			}
			return read, nil
		}
		if time.Now().After(deadline) {
			return nil, err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func keyValue(kv *mvccpb.KeyValue) history.KV {
	return history.KV{
		Key: string(kv.Key), Value: string(kv.Value), Create: kv.CreateRevision, Mod: kv.ModRevision, Version: kv.Version, LeaseID: kv.Lease,
	}
}

// Value is one of its own, so long.
func (l *Load) Value(bytes int) string {
	value := fmt.Sprintf("%s-%d", l.id, l.values.Add(1))
	return value + strings.Repeat(".", max(0, bytes-len(value)))
}

// sameLife is the life of a member in which a call began that has ended now; 0 if it was started meanwhile.
func sameLife(member *rig.Member, began int) int {
	if member.Life() != began {
		return 0
	}
	return began
}
