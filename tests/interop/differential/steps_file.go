package differential

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// A file of steps holds one step a line; lines that begin with # are for people, but for "# shards: N", how many shards
// the server under test has:
//
//	call etcdserverpb.PutRequest key:"a"
//	stream etcdserverpb.RangeRequest key:"a"
//	watch 2 key:"a"
//	cancel 2 7
//	drain
//	restart kill
//	as ann call etcdserverpb.PutRequest key:"a"

// lineBytesMax holds the largest request.
const lineBytesMax = 64 << 20

// encodeStep is a step with at most one call as a line; one with more calls takes as many lines.
func encodeStep(step Step) string {
	switch {
	case len(step.calls) > 0:
		var lines []string
		for _, request := range step.calls {
			word, person := "call", ""
			if of, ok := request.(as); ok {
				person, request = "as "+of.person+" ", of.Message
			}
			if streamed, ok := request.(rangeStream); ok {
				word, request = "stream", streamed.RangeRequest
			}
			lines = append(lines, fmt.Sprintf("%s%s %s %s", person, word, request.ProtoReflect().Descriptor().FullName(), printText(request)))
		}
		return strings.Join(lines, "\n")
	case step.create != nil:
		return fmt.Sprintf("watch %d %s", step.stream, printText(step.create))
	case step.cancel != nil:
		return fmt.Sprintf("cancel %d %d", step.stream, *step.cancel)
	case step.restart != "":
		return "restart " + step.restart
	default:
		return "drain"
	}
}

func decodeStep(line string) (Step, error) {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "drain":
		return Step{drain: true}, nil
	case "restart":
		if rest != restartStop && rest != restartKill && rest != restartStreams {
			return Step{}, fmt.Errorf("unknown restart %q", rest)
		}
		return Step{restart: rest}, nil
	case "as":
		person, rest, _ := strings.Cut(rest, " ")
		step, err := decodeStep(rest)
		if err != nil || len(step.calls) != 1 {
			return Step{}, fmt.Errorf("nothing to do as %q: %v", person, err)
		}
		return call(as{person, step.calls[0]}), nil
	case "call", "stream":
		name, text, _ := strings.Cut(rest, " ")
		kind, err := protoregistry.GlobalTypes.FindMessageByName(protoreflect.FullName(name))
		if err != nil {
			return Step{}, err
		}
		request := kind.New().Interface()
		if err := prototext.Unmarshal([]byte(text), request); err != nil {
			return Step{}, err
		}
		if word == "stream" {
			request = rangeStream{request.(*pb.RangeRequest)}
		}
		return call(request), nil
	case "watch", "cancel":
		number, text, _ := strings.Cut(rest, " ")
		stream, err := strconv.Atoi(number)
		if err != nil || stream < 0 || stream >= streamCount {
			return Step{}, fmt.Errorf("no stream %q", number)
		}
		if word == "cancel" {
			id, err := strconv.ParseInt(text, 10, 64)
			return Step{stream: stream, cancel: &id}, err
		}
		create := &pb.WatchCreateRequest{}
		return Step{stream: stream, create: create}, prototext.Unmarshal([]byte(text), create)
	default:
		return Step{}, fmt.Errorf("unknown step %q", word)
	}
}

func writeSteps(path, comment string, shards int, steps []Step) error {
	var text strings.Builder
	for line := range strings.Lines(comment) {
		fmt.Fprintf(&text, "# %s\n", strings.TrimRight(line, "\n"))
	}
	fmt.Fprintf(&text, "# shards: %d\n", shards)
	for _, step := range steps {
		text.WriteString(encodeStep(step) + "\n")
	}
	return os.WriteFile(path, []byte(text.String()), 0o600)
}

func readSteps(path string) (shards int, steps []Step, err error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, lineBytesMax)
	for number := 1; lines.Scan(); number++ {
		line := lines.Text()
		if count, ok := strings.CutPrefix(line, "# shards: "); ok {
			if shards, err = strconv.Atoi(count); err != nil {
				return 0, nil, fmt.Errorf("%s:%d: %w", path, number, err)
			}
		}
		if line == "" || line[0] == '#' {
			continue
		}
		step, err := decodeStep(line)
		if err != nil {
			return 0, nil, fmt.Errorf("%s:%d: %w", path, number, err)
		}
		steps = append(steps, step)
	}
	return shards, steps, lines.Err()
}

// flat gives every step at most one call.
func flat(steps []Step) []Step {
	var all []Step
	for _, step := range steps {
		if len(step.calls) < 2 {
			all = append(all, step)
			continue
		}
		for _, request := range step.calls {
			all = append(all, call(request))
		}
	}
	return all
}

var _ proto.Message = rangeStream{}
