package main

import "fmt"

func main() {
	var a, b int
	fmt.Scan(&a, &b)
	hoard := make([][]byte, 0)
	for i := 0; i < 25; i++ {
		block := make([]byte, 16<<20)
		for j := range block {
			block[j] = byte(j)
		}
		hoard = append(hoard, block)
	}
	fmt.Println(a + b + len(hoard) - 25)
}
