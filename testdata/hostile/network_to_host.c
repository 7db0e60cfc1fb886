// A server of the host, on the address that every machine has; its port is on the input's second line.
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
int main(void) {
    int a, b, port;
    scanf("%d %d %d", &a, &b, &port);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int s = socket(AF_INET, SOCK_STREAM, 0);
    printf("%d\n", connect(s, (struct sockaddr *)&to, sizeof to) == 0 ? -1 : a + b);
}
