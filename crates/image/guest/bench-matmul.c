/* Square matrices of doubles multiplied: 2 SIDE^3 operations a round, row by row.
 * usage: bench-matmul [SIDE [ROUNDS]] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    long side = argc > 1 ? atol(argv[1]) : 128, rounds = argc > 2 ? atol(argv[2]) : 10;
    if (side < 1 || side > 4096) {
        fprintf(stderr, "bench-matmul: SIDE is 1 to 4096\n");
        return 2;
    }
    size_t n = (size_t)side;
    double *a = malloc(n * n * sizeof *a), *b = malloc(n * n * sizeof *b);
    double *c = malloc(n * n * sizeof *c);
    if (!a || !b || !c) {
        fprintf(stderr, "bench-matmul: no memory for three matrices of side %ld\n", side);
        return 1;
    }
    for (size_t i = 0; i < n * n; i++) {
        a[i] = (double)(i % 17) - 8.0;
        b[i] = 1.0 / (double)(i % 13 + 1);
    }
    for (long round = 0; round < rounds; round++) {
        memset(c, 0, n * n * sizeof *c);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k < n; k++) {
                double factor = a[i * n + k];
                for (size_t j = 0; j < n; j++)
                    c[i * n + j] += factor * b[k * n + j];
            }
        a[(size_t)round % (n * n)] += 1.0;
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < n * n; i++) {
        uint64_t bits;
        memcpy(&bits, &c[i], sizeof bits);
        sum = (sum << 7 | sum >> 57) ^ bits;
    }
    printf("bench-matmul: side %ld, %ld rounds, checksum %016llx\n", side, rounds,
           (unsigned long long)sum);
    return 0;
}
