package differential

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// The rules by which two right answers may differ. Each has a name, which the README repeats with its reason.
//
//   - identities: cluster_id, member_id and leader are compared as "set" or "not set".
//   - raft term: likewise, in headers and Status; so are Status.raftIndex and raftAppliedIndex.
//   - sizes: Status.dbSize and dbSizeInUse are compared as "set" or "not set".
//   - addresses: a member's URLs are compared by their number, since the two servers have different ports.
//   - ties: entries with equal sort keys come in any order; if a limit cuts through a tie, any of its entries may be
//     there. etcd's sort is not stable.
//   - hidden sort keys: sorted by VALUE with keys_only, ties cannot be seen, so only the number of entries counts.
//   - lease sets: LeaseLeases and the keys of LeaseTimeToLive come in any order (etcd walks a map).
//   - remaining time: a lease's TTL in LeaseTimeToLive may be up to remainingSlack seconds below what was granted.
//   - batches: how the events of one watcher are cut into responses, and those responses' header.revision, is free
//     (see watchStream for what must still hold); so is the number of progress answers.

// remainingSlack is generous: the two servers were given the lease at most one test run ago.
const remainingSlack = 600

// normalise returns a copy of an answer to `request` with the freedoms above taken out.
func normalise(request, answer proto.Message) proto.Message {
	answer = proto.Clone(answer)
	switch response := answer.(type) {
	case *pb.RangeResponse:
		normaliseRange(rangeRequestOf(request), response)
	case *pb.TxnResponse:
		normaliseTxn(request.(*pb.TxnRequest), response)
	case *pb.LeaseLeasesResponse:
		slices.SortFunc(response.Leases, func(a, b *pb.LeaseStatus) int { return cmp.Compare(a.ID, b.ID) })
	case *pb.LeaseTimeToLiveResponse:
		slices.SortFunc(response.Keys, bytes.Compare)
		if response.TTL <= response.GrantedTTL && response.TTL > response.GrantedTTL-remainingSlack {
			response.TTL = response.GrantedTTL
		}
	case *pb.StatusResponse:
		flatten(&response.DbSize, &response.DbSizeInUse)
		flatten(&response.Leader, &response.RaftIndex, &response.RaftTerm, &response.RaftAppliedIndex)
	case *pb.MemberListResponse:
		for _, member := range response.Members {
			flatten(&member.ID)
			member.PeerURLs = []string{fmt.Sprintf("%d", len(member.PeerURLs))}
			member.ClientURLs = []string{fmt.Sprintf("%d", len(member.ClientURLs))}
		}
	}
	if answer, ok := answer.(interface{ GetHeader() *pb.ResponseHeader }); ok {
		normaliseHeader(answer.GetHeader())
	}
	return answer
}

func normaliseHeader(header *pb.ResponseHeader) {
	if header != nil {
		flatten(&header.ClusterId, &header.MemberId, &header.RaftTerm)
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

func rangeRequestOf(request proto.Message) *pb.RangeRequest {
	if streamed, ok := request.(rangeStream); ok {
		return streamed.RangeRequest
	}
	return request.(*pb.RangeRequest)
}

// normaliseTxn walks the branch that was taken beside its answers.
func normaliseTxn(request *pb.TxnRequest, response *pb.TxnResponse) {
	normaliseHeader(response.Header)
	operations := request.Failure
	if response.Succeeded {
		operations = request.Success
	}
	for i, answer := range response.Responses {
		if i >= len(operations) {
			return
		}
		if answer.GetResponseRange() != nil && operations[i].GetRequestRange() != nil {
			normaliseRange(operations[i].GetRequestRange(), answer.GetResponseRange())
		}
		if answer.GetResponseTxn() != nil && operations[i].GetRequestTxn() != nil {
			normaliseTxn(operations[i].GetRequestTxn(), answer.GetResponseTxn())
		}
	}
}

// normaliseRange puts ties in the order of keys and takes out the tie that a limit cuts through.
func normaliseRange(request *pb.RangeRequest, response *pb.RangeResponse) {
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

// printAnswer is the text that is compared: equal texts are equal answers.
func printAnswer(request proto.Message, a answer) string {
	if a.status != nil {
		return fmt.Sprintf("%v: %s", a.status.Code(), a.status.Message())
	}
	return printText(normalise(request, a.message))
}

// printMessage prints a watch response, all of whose revisions count.
func printMessage(response *pb.WatchResponse) string {
	response = proto.Clone(response).(*pb.WatchResponse)
	normaliseHeader(response.Header)
	return printText(response)
}

func printEvent(event *mvccpb.Event) string { return printText(event) }

// printText prints any message. prototext's white space is stable within one binary, and both sides are printed by one.
func printText(message proto.Message) string {
	text, err := prototext.Marshal(message)
	if err != nil {
		return fmt.Sprintf("not printable: %v", err)
	}
	return string(text)
}
