/* Processes made and ended, each of which writes to pages that it shares with its parent:
 * page tables copied, faults on write, teardown.
 * usage: bench-fork [PROCESSES] */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PAGES = 64, PAGE = 4096 };

static volatile unsigned char memory[PAGES * PAGE];

int main(int argc, char **argv)
{
    long processes = argc > 1 ? atol(argv[1]) : 500;
    unsigned sum = 0;
    for (int i = 0; i < PAGES; i++)
        memory[i * PAGE] = (unsigned char)i;
    for (long i = 0; i < processes; i++) {
        pid_t child = fork();
        if (child < 0) {
            perror("bench-fork: fork");
            return 1;
        }
        if (child == 0) {
            unsigned char mine = 0;
            for (int page = 0; page < PAGES; page++)
                mine += memory[page * PAGE] += (unsigned char)(i + page);
            _exit(mine);
        }
        int status;
        if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) {
            fprintf(stderr, "bench-fork: a process did not end by itself\n");
            return 1;
        }
        sum = sum * 31 + (unsigned)WEXITSTATUS(status);
    }
    printf("bench-fork: %ld processes, checksum %08x\n", processes, sum);
    return 0;
}
