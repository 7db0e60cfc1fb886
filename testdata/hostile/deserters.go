package main

import "fmt"

// Goroutines that never end.
func main() {
	var a, b int
	fmt.Scan(&a, &b)
	for i := 0; i < 8; i++ {
		go func() {
			for {
			}
		}()
	}
	select {}
}
