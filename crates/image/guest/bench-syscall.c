/* The way into the kernel and back: calls that do nothing, and a byte through a pipe.
 * usage: bench-syscall [CALLS] */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    long calls = argc > 1 ? atol(argv[1]) : 200000, same = 0;
    int ends[2];
    if (pipe(ends)) {
        perror("bench-syscall: pipe");
        return 1;
    }
    long parent = syscall(SYS_getppid);
    for (long i = 0; i < calls; i++)
        same += syscall(SYS_getppid) == parent;
    unsigned sum = 0;
    for (long i = 0; i < calls; i++) {
        unsigned char out = (unsigned char)i, in = 0;
        if (write(ends[1], &out, 1) != 1 || read(ends[0], &in, 1) != 1) {
            perror("bench-syscall: pipe");
            return 1;
        }
        sum = sum * 31 + in;
    }
    printf("bench-syscall: %ld calls, %ld pipe bytes, checksum %08x\n", same, calls, sum);
    return same == calls ? 0 : 1;
}
