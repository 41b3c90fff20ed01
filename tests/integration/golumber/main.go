// Sends numbered events with Elastic's own Lumberjack client, in several windows over one connection.
//
// usage: golumber ADDRESS TEXT WINDOWS EVENTS COMPRESSION-LEVEL [async]
// Prints how many events were acknowledged.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"

	v2 "github.com/elastic/go-lumber/client/v2"
)

func window(text string, number, size int) []interface{} {
	events := make([]interface{}, size)
	for n := range events {
		events[n] = map[string]interface{}{
			"@timestamp": "2026-11-20T00:00:00Z",
			"message":    fmt.Sprintf("%s %06d", text, number*size+n),
		}
	}
	return events
}

func number(argument string) int {
	n, err := strconv.Atoi(argument)
	check(err)
	return n
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	address, text := os.Args[1], os.Args[2]
	windows, size, level := number(os.Args[3]), number(os.Args[4]), v2.CompressionLevel(number(os.Args[5]))
	acknowledged := 0
	if len(os.Args) > 6 {
		client, err := v2.AsyncDial(address, 2, level) // two windows under way, as Filebeat has
		check(err)
		var done sync.WaitGroup
		for n := 0; n < windows; n++ {
			done.Add(1)
			check(client.Send(func(seq uint32, err error) {
				check(err)
				acknowledged += int(seq)
				done.Done()
			}, window(text, n, size)))
		}
		done.Wait()
	} else {
		client, err := v2.SyncDial(address, level)
		check(err)
		for n := 0; n < windows; n++ {
			count, err := client.Send(window(text, n, size))
			check(err)
			acknowledged += count
		}
	}
	fmt.Println(acknowledged)
}
