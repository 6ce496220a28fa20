/* Planets under gravity, in double precision: additions, multiplications, divisions, roots.
 * usage: bench-nbody [STEPS] */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODIES = 6 };

struct body {
    double place[3], speed[3], mass;
};

static struct body bodies[BODIES];

/* A sun and planets on circles, each further out and lighter than the one before. */
static void start(void)
{
    bodies[0].mass = 40.0;
    for (int i = 1; i < BODIES; i++) {
        double distance = 1.5 * i + 0.25 * i * i;
        bodies[i].mass = 0.05 / i;
        bodies[i].place[i % 2] = distance;
        bodies[i].place[2] = 0.01 * i;
        bodies[i].speed[(i + 1) % 2] = sqrt(bodies[0].mass / distance);
    }
}

static void step(double dt)
{
    for (int i = 0; i < BODIES; i++)
        for (int j = i + 1; j < BODIES; j++) {
            double way[3], square = 1e-9;
            for (int k = 0; k < 3; k++) {
                way[k] = bodies[i].place[k] - bodies[j].place[k];
                square += way[k] * way[k];
            }
            double pull = dt / (square * sqrt(square));
            for (int k = 0; k < 3; k++) {
                bodies[i].speed[k] -= way[k] * bodies[j].mass * pull;
                bodies[j].speed[k] += way[k] * bodies[i].mass * pull;
            }
        }
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++)
            bodies[i].place[k] += dt * bodies[i].speed[k];
}

int main(int argc, char **argv)
{
    long steps = argc > 1 ? atol(argv[1]) : 100000;
    start();
    for (long i = 0; i < steps; i++)
        step(0.001);
    uint64_t sum = 0;
    for (int i = 0; i < BODIES; i++)
        for (int k = 0; k < 3; k++) {
            uint64_t bits;
            memcpy(&bits, &bodies[i].place[k], sizeof bits);
            sum = (sum << 7 | sum >> 57) ^ bits;
        }
    printf("bench-nbody: %ld steps, checksum %016llx\n", steps, (unsigned long long)sum);
    return 0;
}
