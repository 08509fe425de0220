package crowds

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gorilla/websocket"

	"basalt/tests/interop/harness"
)

// listJSON asks for the whole list.
const listJSON = `{"key":"bGlzdC8=","range_end":"bGlzdDA="}`

// TestGatewayListsThatComeTogether asks the JSON gateway for a list of 40 MB many times at once, by plain HTTP and by websocket, and
// looks that the server keeps to its memory: JSON of a list is never whole, and what it is made of has its room among answers.
func TestGatewayListsThatComeTogether(t *testing.T) {
	const limit = 512 << 20
	lists := size(40, 400)
	server := harness.StartUnderTest(t, fmt.Sprintf("--basalt-memory-limit=%d", limit))
	fillList(t, server)
	// Nothing in caches, and all values in pages.
	server.Stop()
	server.Restart()
	server.ForgetPeakMemory()
	var refused atomic.Int64
	parallel(t, lists, lists, func(i int) error {
		for {
			answer, err := listByGateway(server, i%4 == 0)
			if err != nil {
				return err
			}
			// Each key is an object, and so are the header and the whole.
			if objects := listKeys + 2; answer.objects == objects && answer.last == '}' {
				return nil
			}
			if !strings.Contains(answer.begin, "etcdserver: too many requests") {
				return fmt.Errorf("%d objects, %q at the begin", answer.objects, answer.begin)
			}
			refused.Add(1)
		}
	})
	peak := server.PeakMemory()
	t.Logf("%d lists of 40 MB at once as JSON: peak %d MiB, %d times told to come again", lists, peak>>20, refused.Load())
	if peak > limit {
		t.Errorf("peak memory %d, the limit is %d", peak, limit)
	}
}

// listed is what of a list in JSON can be told without keeping it.
type listed struct {
	objects int
	begin   string
	last    byte
}

func listByGateway(server *harness.Server, asWebsocket bool) (listed, error) {
	const path = "/v3/kv/range"
	if !asWebsocket {
		response, err := http.Post(server.Endpoint()+path, "application/json", strings.NewReader(listJSON))
		if err != nil {
			return listed{}, err
		}
		defer response.Body.Close()
		return countListed(response.Body)
	}
	socket, _, err := websocket.DefaultDialer.Dial(strings.Replace(server.Endpoint(), "http", "ws", 1)+path, nil)
	if err != nil {
		return listed{}, err
	}
	defer socket.Close()
	if err := socket.WriteMessage(websocket.TextMessage, []byte(listJSON)); err != nil {
		return listed{}, err
	}
	_, message, err := socket.NextReader()
	if err != nil {
		return listed{}, err
	}
	return countListed(message)
}

func countListed(body io.Reader) (listed, error) {
	var list listed
	piece := make([]byte, 64<<10)
	for {
		count, err := body.Read(piece)
		if count > 0 {
			list.objects += bytes.Count(piece[:count], []byte("{"))
			list.last = piece[count-1]
			if list.begin == "" {
				list.begin = string(piece[:min(count, 200)])
			}
		}
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
	}
}
