// A bulk endpoint that stores nothing: it counts documents by index and answers as Elasticsearch does.
//
// usage: sink PORT [KEEP_FILE]
// With a second argument it appends every body to that file, for the oracle. /_stats_sink tells what came,
// /_reset_sink forgets it.
package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const about = `{"name":"sink","cluster_name":"sink","cluster_uuid":"AAAAAAAAAAAAAAAAAAAAAA","version":{` +
	`"number":"9.2.0","build_flavor":"default","build_type":"docker","build_hash":"x",` +
	`"build_date":"2025-10-21T10:06:21.288851013Z","build_snapshot":false,"lucene_version":"10.3.1",` +
	`"minimum_wire_compatibility_version":"8.19.0","minimum_index_compatibility_version":"8.0.0"},` +
	`"tagline":"You Know, for Search"}`

// What came since the start or the last reset.
type tally struct {
	sync.Mutex
	counts       map[string]int
	total, bytes int
	last         time.Time
	keep         *bufio.Writer
}

var seen = tally{counts: map[string]int{}}

func main() {
	if len(os.Args) > 2 {
		file, err := os.Create(os.Args[2])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		seen.keep = bufio.NewWriterSize(file, 1<<20)
	}
	http.HandleFunc("/", answer)
	fmt.Fprintln(os.Stderr, http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
	os.Exit(1)
}

func answer(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", contentType(r))
	switch {
	case r.URL.Path == "/_stats_sink":
		stats(w)
	case r.URL.Path == "/_reset_sink":
		reset()
	case strings.HasSuffix(r.URL.Path, "/_bulk"):
		bulk(w, r)
	case r.URL.Path == "/":
		fmt.Fprint(w, about)
	case r.URL.Path == "/_license":
		fmt.Fprint(w, `{"license":{"status":"active","uid":"x","type":"basic"}}`)
	default:
		fmt.Fprint(w, `{"acknowledged":true}`)
	}
}

func contentType(r *http.Request) string {
	if strings.Contains(r.Header.Get("Accept"), "vnd.elasticsearch") {
		return "application/vnd.elasticsearch+json;compatible-with=9"
	}
	return "application/json"
}

func stats(w io.Writer) {
	seen.Lock()
	defer seen.Unlock()
	if seen.keep != nil {
		seen.keep.Flush()
	}
	last := float64(seen.last.UnixNano()) / 1e9
	json.NewEncoder(w).Encode(map[string]any{"total": seen.total, "bytes": seen.bytes, "last": last, "counts": seen.counts})
}

func reset() {
	seen.Lock()
	defer seen.Unlock()
	seen.counts, seen.total, seen.bytes, seen.last = map[string]int{}, 0, 0, time.Time{}
}

func bulk(w http.ResponseWriter, r *http.Request) {
	body, err := read(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	counts := map[string]int{}
	reply, n := items(body, strings.Trim(strings.TrimSuffix(r.URL.Path, "/_bulk"), "/"), counts)
	count(body, n, counts)
	w.Write(reply)
}

func read(r *http.Request) ([]byte, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return io.ReadAll(r.Body)
	}
	plain, err := gzip.NewReader(r.Body)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(plain)
}

// The answer to a bulk body, and how many documents it has; counts gets them by index.
func items(body []byte, index string, counts map[string]int) ([]byte, int) {
	var out bytes.Buffer
	out.WriteString(`{"took":1,"errors":false,"items":[`)
	n, action := 0, true
	for _, line := range bytes.Split(body, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		if action {
			item(&out, n, line, index, counts)
			n++
		}
		action = !action
	}
	out.WriteString("]}")
	return out.Bytes(), n
}

// The answer to one action line.
func item(out *bytes.Buffer, n int, line []byte, index string, counts map[string]int) {
	if i := bytes.Index(line, []byte(`"_index":`)); i >= 0 {
		index = string(bytes.SplitN(line[i+9:], []byte(`"`), 3)[1])
	}
	verb := "index"
	if bytes.Contains(line[:min(12, len(line))], []byte("create")) {
		verb = "create"
	}
	counts[index]++
	if n > 0 {
		out.WriteByte(',')
	}
	out.WriteString(`{"` + verb + `":{"_index":"` + index + `","_id":"x` + strconv.Itoa(n) +
		`","_version":1,"result":"created","status":201}}`)
}

func count(body []byte, n int, counts map[string]int) {
	seen.Lock()
	defer seen.Unlock()
	seen.last = time.Now()
	seen.total += n
	seen.bytes += len(body)
	for index, count := range counts {
		seen.counts[index] += count
	}
	if seen.keep != nil {
		seen.keep.Write(body)
	}
}
