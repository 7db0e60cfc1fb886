# verdict: WA
