/* Integer work of a small embedded kind: a linked list sorted and searched, a matrix of 16-bit
 * numbers multiplied, a text run through a state machine; all results go into one checksum.
 * usage: bench-int [ROUNDS] */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ITEMS = 256, SIDE = 24, TEXT = 2048 };

struct item {
    struct item *next;
    uint32_t key;
    uint32_t value;
};

static struct item items[ITEMS];
static int16_t left[SIDE][SIDE], right[SIDE][SIDE];
static int32_t product[SIDE][SIDE];
static char text[TEXT];

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static uint32_t mix(uint32_t sum, uint32_t value)
{
    for (int bit = 0; bit < 32; bit++) {
        uint32_t low = (sum ^ value) & 1;
        sum >>= 1;
        value >>= 1;
        if (low)
            sum ^= 0xedb88320u;
    }
    return sum;
}

/* Merge sort by key; equal keys keep their order. */
static struct item *sorted(struct item *list)
{
    if (!list || !list->next)
        return list;
    struct item *slow = list, *fast = list->next;
    while (fast && fast->next) {
        slow = slow->next;
        fast = fast->next->next;
    }
    struct item *other = sorted(slow->next);
    slow->next = NULL;
    list = sorted(list);
    struct item *head = NULL, **end = &head;
    while (list && other) {
        struct item **from = list->key <= other->key ? &list : &other;
        *end = *from;
        *from = (*from)->next;
        end = &(*end)->next;
    }
    *end = list ? list : other;
    return head;
}

static uint32_t list_work(uint32_t *random, uint32_t sum)
{
    for (int i = 0; i < ITEMS; i++) {
        items[i].next = i + 1 < ITEMS ? &items[i + 1] : NULL;
        items[i].key = next_random(random) % 1000;
        items[i].value = (uint32_t)i;
    }
    struct item *list = sorted(items);
    for (int search = 0; search < 32; search++) {
        uint32_t key = next_random(random) % 1000;
        const struct item *at = list;
        while (at && at->key < key)
            at = at->next;
        sum = mix(sum, at ? at->value : key);
    }
    return sum;
}

static uint32_t matrix_work(uint32_t *random, uint32_t sum)
{
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            left[i][j] = (int16_t)next_random(random);
            right[i][j] = (int16_t)next_random(random);
        }
    for (int i = 0; i < SIDE; i++)
        for (int j = 0; j < SIDE; j++) {
            uint32_t cell = 0;
            for (int k = 0; k < SIDE; k++)
                cell += (uint32_t)(left[i][k] * right[k][j]);
            product[i][j] = (int32_t)cell;
        }
    for (int i = 0; i < SIDE; i++)
        sum = mix(sum, (uint32_t)product[i][(i * 7) % SIDE]);
    return sum;
}

/* Counts integers, decimals, words and what is broken in a text of random fields. */
static uint32_t text_work(uint32_t *random, uint32_t sum)
{
    static const char letters[] = "0123456789..,,  +-abcxyz";
    enum { START, INTEGER, DECIMAL, WORD, BROKEN, STATES } state = START;
    uint32_t counts[STATES] = { 0 };
    for (int i = 0; i < TEXT; i++)
        text[i] = letters[next_random(random) % (sizeof letters - 1)];
    for (int i = 0; i < TEXT; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9';
        if (c == ',' || c == ' ') {
            counts[state]++;
            state = START;
            continue;
        }
        switch (state) {
        case START:
            state = digit || c == '+' || c == '-' ? INTEGER : c == '.' ? DECIMAL : WORD;
            break;
        case INTEGER:
            state = digit ? INTEGER : c == '.' ? DECIMAL : BROKEN;
            break;
        case DECIMAL:
            state = digit ? DECIMAL : BROKEN;
            break;
        case WORD:
            state = c >= 'a' ? WORD : BROKEN;
            break;
        default:
            break;
        }
    }
    for (int i = 0; i < STATES; i++)
        sum = mix(sum, counts[i]);
    return sum;
}

int main(int argc, char **argv)
{
    long rounds = argc > 1 ? atol(argv[1]) : 2000;
    uint32_t random = 1, sum = ~0u;
    for (long round = 0; round < rounds; round++) {
        sum = list_work(&random, sum);
        sum = matrix_work(&random, sum);
        sum = text_work(&random, sum);
    }
    printf("bench-int: %ld rounds, checksum %08x\n", rounds, (unsigned)sum);
    return 0;
}
