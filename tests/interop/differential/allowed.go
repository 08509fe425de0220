package differential

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// difference is one way in which two right answers may differ, and why. This list is all of them.
type difference struct {
	name, reason string
	// drop takes it out of an answer; nil where watchStream or side sees to it.
	drop func(request, answer proto.Message)
}

var allowed = []difference{
	{"identities", "ids of cluster, members and leader hash ports: only whether they are set counts", dropIdentities},
	{"raft progress", "terms and Raft indexes count elections and internal entries, which nobody promises", dropRaftProgress},
	{"sizes", "dbSize and dbSizeInUse: the storage formats differ", dropSizes},
	{"addresses", "a member's URLs hold ports: only their number counts", dropAddresses},
	{"ties", "etcd's sort is not stable: equal sort keys come in any order, and a limit that cuts through them keeps any; " +
		"sorted by VALUE with keys_only they cannot even be seen, so that only the number of entries counts", dropTies},
	{"lease sets", "LeaseLeases and the keys of LeaseTimeToLive: etcd walks a map", dropLeaseOrder},
	{"remaining time", "TTL in LeaseTimeToLive: the clock runs", dropRemainingTime},
	{"own id in errors", "Status.errors names the member (side replaces its id)", nil},
	{"batches", "how a watcher's events are cut into responses, header.revision of these and the number of answers to " +
		"requests for progress are timing; watchStream checks what still must hold", nil},
	{"instant of NOSPACE", "the quota is of bytes in two storage formats (see quota_test.go)", nil},
	{"size and Hash of a snapshot", "they are of the file; revision, totalKey and version must be equal (see final.go)", nil},
}

// notAsked is what the generator leaves out, because etcd's answer is a race or a bug.
var notAsked = []struct{ name, reason string }{
	{"RangeStream with a sort_target and no order", "etcd repeats keys (etcd-contract 18)"},
	{"HashKV(0) after Compact(0)", "etcd answers from a wrong cache entry (etcd-contract 52)"},
	{"HashKV of a compact revision whose compaction may run", "it changes when the compaction ends, and is kept only if the one before had ended, which a start may run again (etcd-contract 52)"},
	{"a lease with an id that the server chooses", "the two choose different ones"},
	{"leases that expire", "the instants differ; etcdctl_test.go has one"},
	{"a transaction that deletes from a key on, and puts after that",
		"etcd sees no overlap where range_end is \"\\0\": a put of a deleted key with ignore_value ends it, and one at the compact " +
			"revision is dropped by the compaction"},
	{"as somebody, a range that ends before it begins",
		"no key lies in it; whether etcd permits it hangs on which node of its tree of permissions it comes to first. Here it is permitted " +
			"where both its ends lie in one permission, as an empty range is in etcd"},
	{"an alarm with an unknown action or type", "it ends etcd (etcd-contract 43)"},
}

// remainingSlack is generous: the two servers were given the lease at most one round ago.
const remainingSlack = 3600

// normalise takes all allowed differences out of an answer, in place.
func normalise(request, answer proto.Message) {
	for _, difference := range allowed {
		if difference.drop != nil {
			difference.drop(request, answer)
		}
	}
}

// wire is what is compared: equal bytes are equal answers.
func wire(message proto.Message) string {
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
	if err != nil {
		return fmt.Sprintf("not to be encoded: %v", err)
	}
	return string(encoded)
}

func headerOf(answer proto.Message) *pb.ResponseHeader {
	if answer, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		return answer.GetHeader()
	}
	return nil
}

func dropIdentities(_, answer proto.Message) {
	if header := headerOf(answer); header != nil {
		flatten(&header.ClusterId, &header.MemberId)
	}
	switch response := answer.(type) {
	case *pb.StatusResponse:
		flatten(&response.Leader)
	case *pb.MemberListResponse:
		for _, member := range response.Members {
			flatten(&member.ID)
		}
	}
}

func dropRaftProgress(_, answer proto.Message) {
	if header := headerOf(answer); header != nil {
		flatten(&header.RaftTerm)
	}
	if response, ok := answer.(*pb.StatusResponse); ok {
		flatten(&response.RaftIndex, &response.RaftTerm, &response.RaftAppliedIndex)
	}
}

func dropSizes(_, answer proto.Message) {
	if response, ok := answer.(*pb.StatusResponse); ok {
		response.DbSize, response.DbSizeInUse = 0, 0
	}
}

func dropAddresses(_, answer proto.Message) {
	response, ok := answer.(*pb.MemberListResponse)
	if !ok {
		return
	}
	for _, member := range response.Members {
		member.PeerURLs = []string{fmt.Sprint(len(member.PeerURLs))}
		member.ClientURLs = []string{fmt.Sprint(len(member.ClientURLs))}
	}
}

func dropLeaseOrder(_, answer proto.Message) {
	switch response := answer.(type) {
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(response.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(response.Keys, bytes.Compare)
	}
}

func dropRemainingTime(_, answer proto.Message) {
	response, ok := answer.(*pb.LeaseTimeToLiveResponse)
	if ok && response.TTL <= response.GrantedTTL && response.TTL > response.GrantedTTL-remainingSlack {
		response.TTL = response.GrantedTTL
	}
}

// dropTies walks the branch of a transaction that was taken beside its answers.
func dropTies(request, answer proto.Message) {
	switch response := answer.(type) {
	case *pb.RangeResponse:
		if streamed, ok := request.(rangeStream); ok {
			request = streamed.RangeRequest
		}
		dropTiesOfRange(request.(*pb.RangeRequest), response)
	case *pb.TxnResponse:
		request := request.(*pb.TxnRequest)
		operations := request.Failure
		if response.Succeeded {
			operations = request.Success
		}
		for i, answer := range response.Responses {
			if i >= len(operations) {
				return
			}
			if answer.GetResponseRange() != nil && operations[i].GetRequestRange() != nil {
				dropTiesOfRange(operations[i].GetRequestRange(), answer.GetResponseRange())
			}
			if answer.GetResponseTxn() != nil && operations[i].GetRequestTxn() != nil {
				dropTies(operations[i].GetRequestTxn(), answer.GetResponseTxn())
			}
		}
	}
}

// dropTiesOfRange puts ties in the order of keys and takes out the tie that a limit cuts through.
func dropTiesOfRange(request *pb.RangeRequest, response *pb.RangeResponse) {
	target := request.SortTarget
	if target == pb.RangeRequest_KEY || len(response.Kvs) == 0 {
		return
	}
	if target == pb.RangeRequest_VALUE && request.KeysOnly {
		response.Kvs = []*mvccpb.KeyValue{{Version: int64(len(response.Kvs))}}
		return
	}
	if response.More {
		last := response.Kvs[len(response.Kvs)-1]
		for i, kv := range response.Kvs {
			if compareBy(target, kv, last) == 0 {
				response.Kvs[i] = &mvccpb.KeyValue{Key: []byte("cut tie"), Value: sortKey(target, kv)}
			}
		}
	}
	// Runs of equal sort keys only: the order of the runs themselves is the server's answer.
	for start := 0; start < len(response.Kvs); {
		end := start + 1
		for end < len(response.Kvs) && compareBy(target, response.Kvs[start], response.Kvs[end]) == 0 {
			end++
		}
		slices.SortFunc(response.Kvs[start:end], func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
		start = end
	}
}

// flatten keeps of a number only whether it is set.
func flatten[N int64 | uint64](numbers ...*N) {
	for _, number := range numbers {
		if *number != 0 {
			*number = 1
		}
	}
}

func compareBy(target pb.RangeRequest_SortTarget, a, b *mvccpb.KeyValue) int {
	return bytes.Compare(sortKey(target, a), sortKey(target, b))
}

// sortKey serves for equality only.
func sortKey(target pb.RangeRequest_SortTarget, kv *mvccpb.KeyValue) []byte {
	switch target {
	case pb.RangeRequest_VERSION:
		return fmt.Append(nil, kv.Version)
	case pb.RangeRequest_CREATE:
		return fmt.Append(nil, kv.CreateRevision)
	case pb.RangeRequest_MOD:
		return fmt.Append(nil, kv.ModRevision)
	default:
		return kv.Value
	}
}
