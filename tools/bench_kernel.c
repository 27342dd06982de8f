/* The unit that viper is held against: a plain C loop, compiled with gcc -O2 by bench_kernel.py.

   Usage: kernel calls batches channels taps1 shift1 taps2 shift2

   Prints the ns of one pair of calls in the fastest batch, and the activations in hexadecimal. Sizes are arguments
   and the function is not inlined, so that the compiler can unroll or fold no more than it could in a firmware. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TAPS_MAX = 144, CHANNELS_MAX = 16 };

typedef struct {
    int taps, channels, shift;
    uint8_t out[CHANNELS_MAX];
    int16_t x[TAPS_MAX];
    int8_t weights[CHANNELS_MAX * TAPS_MAX];
    int32_t bias[CHANNELS_MAX];
} Layer;

__attribute__((noinline)) static void
convolve(uint8_t *out, const int16_t *x, const int8_t *weights, const int32_t *bias, int taps, int channels, int shift) {
    for (int channel = 0; channel < channels; channel++) {
        int32_t total = bias[channel] + (1 << (shift - 1));
        for (int tap = 0; tap < taps; tap++) {
            total += x[tap] * *weights++;
        }
        total >>= shift;
        out[channel] = total < 0 ? 0 : total > 255 ? 255 : total;
    }
}

/* The numbers of tools/rig/kernel_timing.py. */
static void fill(Layer *layer, int index) {
    for (int at = 0; at < layer->taps; at++) {
        layer->x[at] = index ? at * 29 % 256 : at * 37 % 601 - 300;
    }
    for (int at = 0; at < layer->taps * layer->channels; at++) {
        layer->weights[at] = at * 73 % 256 - 128;
    }
    for (int at = 0; at < layer->channels; at++) {
        layer->bias[at] = at * 3001;
    }
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void compute(Layer *layer) {
    convolve(layer->out, layer->x, layer->weights, layer->bias, layer->taps, layer->channels, layer->shift);
}

int main(int argc, char **argv) {
    static Layer layers[2];
    if (argc != 8) {
        return 2;
    }
    long calls = atol(argv[1]), batches = atol(argv[2]);
    for (int index = 0; index < 2; index++) {
        layers[index].channels = atoi(argv[3]);
        layers[index].taps = atoi(argv[4 + 2 * index]);
        layers[index].shift = atoi(argv[5 + 2 * index]);
        if (layers[index].channels > CHANNELS_MAX || layers[index].taps > TAPS_MAX) {
            return 2;
        }
        fill(&layers[index], index);
    }
    int64_t best_ns = INT64_MAX;
    for (long batch = 0; batch < batches; batch++) {
        int64_t start_ns = now_ns();
        for (long call = 0; call < calls; call++) {
            compute(&layers[0]);
            compute(&layers[1]);
        }
        int64_t taken_ns = now_ns() - start_ns;
        best_ns = taken_ns < best_ns ? taken_ns : best_ns;
    }
    printf("%lld ", (long long)(best_ns / calls));
    for (int index = 0; index < 2; index++) {
        for (int channel = 0; channel < layers[index].channels; channel++) {
            printf("%02x", layers[index].out[channel]);
        }
    }
    printf("\n");
    return 0;
}
