package crowds

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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

// TestWebsocketsThatHoard has many websockets begin a message of 2 MiB that none of them ends: what the server keeps of them all has
// its room, those that find none are sent away, and others go on.
func TestWebsocketsThatHoard(t *testing.T) {
	// A thirty-second of it is for requests that are not whole: 16 MiB.
	const limit, room = 512 << 20, 16 << 20
	const messageBytes = 2 << 20
	sockets := size(100, 1_000)
	server := harness.StartUnderTest(t, fmt.Sprintf("--basalt-memory-limit=%d", limit))
	before := server.Memory()
	var sentAway atomic.Int64
	open := make([]*websocket.Conn, sockets)
	parallel(t, 10, sockets, func(i int) error {
		socket, _, err := websocket.DefaultDialer.Dial(strings.Replace(server.Endpoint(), "http", "ws", 1)+"/v3/watch", nil)
		if err != nil {
			return err
		}
		open[i] = socket
		message, err := socket.NextWriter(websocket.TextMessage)
		if err != nil {
			return err
		}
		// Fails where the server has closed; the last of it stays here.
		if _, err := message.Write(bytes.Repeat([]byte(" "), messageBytes)); err == nil {
			return nil
		}
		sentAway.Add(1)
		return nil
	})
	answer, err := http.Post(server.Endpoint()+"/v3/kv/put", "application/json", strings.NewReader(`{"key":"Zm9v"}`))
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		t.Errorf("a put beside them: %d", answer.StatusCode)
	}
	grown := server.Memory() - before
	for _, socket := range open {
		socket.Close()
	}
	t.Logf("%d websockets with half a message of 2 MiB: %d sent away while they wrote, memory grew by %d MiB", sockets, sentAway.Load(), grown>>20)
	// The room, buffers of the library that grow by doubling, and what a connection costs.
	if most := int64(4*room + sockets*(64<<10)); grown > most {
		t.Errorf("memory grew by %d bytes, more than %d", grown, most)
	}
}

// TestJSONThatHoards has many calls begin a value of JSON that none of them ends, in whole messages of websockets and in bodies of
// HTTP/1.1: what the server keeps of them all has its room, those that find none are told so, and others go on.
func TestJSONThatHoards(t *testing.T) {
	// A thirty-second of it is for requests that are not whole: 16 MiB.
	const limit, room = 512 << 20, 16 << 20
	const messageBytes = 2 << 20
	value := "{" + strings.Repeat(" ", messageBytes-1)
	server := harness.StartUnderTest(t, fmt.Sprintf("--basalt-memory-limit=%d", limit))
	before := server.Memory()
	begin := map[string]func() (io.Closer, error){
		"websockets": func() (io.Closer, error) {
			socket, _, err := websocket.DefaultDialer.Dial(strings.Replace(server.Endpoint(), "http", "ws", 1)+"/v3/watch", nil)
			if err == nil {
				// Fails where the server has closed.
				_ = socket.WriteMessage(websocket.TextMessage, []byte(value))
			}
			return socket, err
		},
		"bodies": func() (io.Closer, error) {
			conn, err := net.Dial("tcp", server.Target())
			if err == nil {
				head := "POST /v3/watch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
				_, _ = fmt.Fprintf(conn, "%s%x\r\n%s\r\n", head, len(value), value)
			}
			return conn, err
		},
	}
	calls := size(50, 500)
	open := make([]io.Closer, 0, 2*calls)
	var mutex sync.Mutex
	for name, one := range begin {
		parallel(t, 10, calls, func(int) error {
			conn, err := one()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			mutex.Lock()
			defer mutex.Unlock()
			open = append(open, conn)
			return nil
		})
	}
	if _, err := server.Client(t).Put(harness.Context(t, time.Minute), "a", "b"); err != nil {
		t.Errorf("a put beside them: %v", err)
	}
	grown := server.Memory() - before
	t.Logf("%d calls with a value of 2 MiB that has no end: memory grew by %d MiB", len(open), grown>>20)
	if most := int64(4*room + len(open)*(64<<10)); grown > most {
		t.Errorf("memory grew by %d bytes, more than %d", grown, most)
	}
	// A value that has begun has a minute. Then there is room again, though nobody has gone away.
	large := `{"key":"Zm9v","value":"` + base64.StdEncoding.EncodeToString(make([]byte, 3<<19-1<<10)) + `"}`
	deadline := time.Now().Add(3 * time.Minute)
	for {
		// Who is refused amid a request may find its connection closed before it has said all.
		answer, err := http.Post(server.Endpoint()+"/v3/kv/put", "application/json", strings.NewReader(large))
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				break
			}
			err = errors.New(answer.Status)
		}
		if time.Now().After(deadline) {
			t.Fatalf("a large put, three minutes later: %v", err)
		}
		time.Sleep(time.Second)
	}
	for _, conn := range open {
		conn.Close()
	}
}
