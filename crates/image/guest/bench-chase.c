/* Follows pointers through memory in a random order that visits each cell once: what counts is
 * how fast an address is translated and a cell is loaded.
 * usage: bench-chase [KIBIBYTES [LOADS]] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { LINE = 64 };

struct cell {
    struct cell *next;
    char rest[LINE - sizeof(struct cell *)];
};

int main(int argc, char **argv)
{
    long kib = argc > 1 ? atol(argv[1]) : 16384, loads = argc > 2 ? atol(argv[2]) : 5000000;
    if (kib < 1 || kib > 4 * 1024 * 1024) {
        fprintf(stderr, "bench-chase: KIBIBYTES is 1 to 4194304\n");
        return 2;
    }
    size_t count = (size_t)kib * 1024 / LINE;
    struct cell *cells = calloc(count, sizeof *cells);
    size_t *order = malloc(count * sizeof *order);
    if (!cells || !order) {
        fprintf(stderr, "bench-chase: no memory for %ld KiB\n", kib);
        return 1;
    }
    uint64_t random = 1;
    for (size_t i = 0; i < count; i++)
        order[i] = i;
    for (size_t i = count - 1; i > 0; i--) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        size_t other = (size_t)(random >> 33) % (i + 1), kept = order[i];
        order[i] = order[other];
        order[other] = kept;
    }
    for (size_t i = 0; i < count; i++)
        cells[order[i]].next = &cells[order[(i + 1) % count]];
    const struct cell *at = cells;
    uint64_t sum = 0;
    for (long i = 0; i < loads; i++) {
        at = at->next;
        sum = sum * 31 + (uint64_t)(at - cells);
    }
    printf("bench-chase: %ld KiB, %ld loads, checksum %016llx\n", kib, loads,
           (unsigned long long)sum);
    return 0;
}
