// The fibers under shim/cuda.h: every thread of a block has a stack, runs until it waits, and
// another takes over, in an order that the caller chooses. What only works in one order is a
// missing barrier. A block in which all wait and nobody can go on is a divergent barrier.
#include "shim/cuda.h"

#include <cstdarg>
#include <vector>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#include <sys/mman.h>
#include <unistd.h>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace shim {
namespace {

constexpr size_t STACK = 256 << 10;

#if defined(__x86_64__)
// Callee-saved registers on the stack, stack pointers exchanged: six pushes against the two system
// calls of swapcontext.
using Context = void*;
extern "C" void cognate_shim_switch(void** from, void* to);
asm(R"(
.text
.type cognate_shim_switch, @function
cognate_shim_switch:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");
void switch_to(Context& from, Context& to) { cognate_shim_switch(&from, to); }
void prepare(Context& context, char* stack, void (*entry)()) {
    void** top = reinterpret_cast<void**>(stack + STACK) - 2;
    *top = reinterpret_cast<void*>(entry);
    context = top - 6;
}
#else
using Context = ucontext_t;
void switch_to(Context& from, Context& to) { swapcontext(&from, &to); }
void prepare(Context& context, char* stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = STACK;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

enum class State { ready, block, warp, done };

struct Copy {
    void* to;
    const void* from;
    bool valid;
};

struct Product {
    float* d;
    unsigned tiles;
    Shared a, b;
    // The left operand of the four lanes that hold this lane's rows, where it was in registers.
    unsigned quad[4][4];
    bool in_registers, across, add;
};

struct Fiber {
    Context context;
    char* stack = nullptr;
    State state = State::ready;
    int line = 0;
    uint3 index;
    // Copies of the open group, and the closed groups that nobody has waited for.
    std::vector<Copy> open;
    std::vector<std::vector<Copy>> groups;
    // Likewise for products.
    std::vector<Product> open_products;
    std::vector<std::vector<Product>> product_groups;
};

struct Warp {
    unsigned arrived = 0;
    int line = 0;
    // Two, taken in turns: a lane may bring its next value while others still read this one.
    Lane lanes[2][32];
    int turn = 0;
};

struct Region {
    const void* site;
    void* memory;
};

Context scheduler;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<Region> regions;
void* dynamic = nullptr;
size_t current = 0, alive = 0, waiting = 0;
int barrier_line = 0;
void (*kernel)(void**);
void** arguments;

void* poisoned(size_t bytes) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 1024, bytes ? bytes : 1) != 0) fail("no memory for a block");
    memset(memory, 0xff, bytes);
    return memory;
}

Fiber& self() { return fibers[current]; }

void yield(State state, int line) {
    Fiber& fiber = self();
    fiber.state = state;
    fiber.line = line;
    switch_to(fiber.context, scheduler);
}

void release_block() {
    for (Fiber& fiber : fibers)
        if (fiber.state == State::block) fiber.state = State::ready;
    waiting = 0;
}

void entry() {
    kernel(arguments);
    // A copy that nobody waited for may or may not have happened: it has not.
    if (waiting > 0) fail("divergent barrier: thread %zu ended, others wait at line %d", current, barrier_line);
    if (!self().open_products.empty() || !self().product_groups.empty())
        fail("thread %zu ended with products that nobody waited for", current);
    --alive;
    for (;;) yield(State::done, 0);
}

uint64_t next_random(uint64_t& state) {
    state += 0x9e3779b97f4a7c15u;
    uint64_t z = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

// Order 0: forward, 1: reverse, 2: random, drawn anew each time.
void arrange(std::vector<size_t>& order, unsigned kind, uint64_t& seed) {
    size_t n = order.size();
    for (size_t i = 0; i < n; ++i) order[i] = kind == 1 ? n - 1 - i : i;
    if (kind == 2)
        for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[next_random(seed) % i]);
}

// Gives each thread of a warp that can run one turn; whether there was any.
bool pass(size_t warp, std::vector<size_t>& lanes, unsigned kind, uint64_t& seed) {
    bool moved = false;
    arrange(lanes, kind, seed);
    for (size_t lane : lanes) {
        size_t i = warp * 32 + lane;
        if (fibers[i].state != State::ready) continue;
        moved = true;
        current = i;
        threadIdx = fibers[i].index;
        switch_to(scheduler, fibers[i].context);
    }
    return moved;
}

void run_block(unsigned shared_bytes, unsigned kind, uint64_t& seed) {
    size_t n = fibers.size();
    dynamic = poisoned(shared_bytes);
    for (size_t i = 0; i < n; ++i) {
        Fiber& fiber = fibers[i];
        fiber.state = State::ready;
        fiber.index = {unsigned(i % blockDim.x), unsigned(i / blockDim.x % blockDim.y),
                       unsigned(i / blockDim.x / blockDim.y)};
        fiber.open.clear();
        fiber.groups.clear();
        fiber.open_products.clear();
        fiber.product_groups.clear();
        prepare(fiber.context, fiber.stack, entry);
    }
    for (Warp& warp : warps) warp.arrived = 0;
    alive = n;
    waiting = 0;
    std::vector<size_t> order(warps.size()), lanes(32);
    while (alive > 0) {
        bool moved = false;
        arrange(order, kind, seed);
        for (size_t warp : order) {
            // A warp runs ahead until all of it waits, so that it overwrites what others have yet to
            // read; in random order it may stop early.
            while (pass(warp, lanes, kind, seed)) {
                moved = true;
                if (kind == 2 && next_random(seed) % 4 == 0) break;
            }
        }
        if (!moved) {
            size_t a = 0;
            while (fibers[a].state == State::done) ++a;
            size_t b = n - 1;
            while (fibers[b].state == State::done || (b > a && fibers[b].line == fibers[a].line)) --b;
            fail("divergent barrier: of %zu threads, thread %zu waits at line %d and thread %zu at line %d", n, a,
                 fibers[a].line, b, fibers[b].line);
        }
    }
    for (Region& region : regions) free(region.memory);
    regions.clear();
    free(dynamic);
}

} // namespace

void fail(const char* format, ...) {
    va_list rest;
    va_start(rest, format);
    fprintf(stderr, "shim: ");
    vfprintf(stderr, format, rest);
    fprintf(stderr, " (block %u %u %u)\n", blockIdx.x, blockIdx.y, blockIdx.z);
    fflush(stderr);
    _exit(99);
}

unsigned lane() { return current % 32; }

void* shared(const void* site, size_t bytes) {
    for (Region& region : regions)
        if (region.site == site) return region.memory;
    regions.push_back({site, poisoned(bytes)});
    return regions.back().memory;
}

void* dynamic_shared() { return dynamic; }

void sync_threads(int line) {
    if (waiting > 0 && barrier_line != line)
        fail("divergent barrier: thread %zu waits at line %d, others at line %d", current, line, barrier_line);
    if (alive < fibers.size()) fail("divergent barrier: line %d, where other threads have ended", line);
    barrier_line = line;
    if (++waiting == alive)
        release_block();
    else
        yield(State::block, line);
}

const Lane* exchange(unsigned mask, const void* mine, size_t bytes, int line) {
    if (mask != 0xffffffffu) fail("line %d: only whole warps work together", line);
    if (bytes > sizeof(Lane)) fail("line %d: %zu bytes a lane", line, bytes);
    Warp& warp = warps[current / 32];
    int turn = warp.turn;
    if (warp.arrived != 0 && warp.line != line)
        fail("divergent warp: thread %zu is at line %d, others at line %d", current, line, warp.line);
    warp.line = line;
    warp.arrived |= 1u << lane();
    if (bytes > 0) memcpy(warp.lanes[turn][lane()].bytes, mine, bytes);
    if (warp.arrived == 0xffffffffu) {
        warp.arrived = 0;
        warp.turn ^= 1;
        size_t first = current / 32 * 32;
        for (size_t i = first; i < first + 32; ++i)
            if (fibers[i].state == State::warp) fibers[i].state = State::ready;
    } else {
        yield(State::warp, line);
    }
    return warp.lanes[turn];
}

unsigned ballot(unsigned mask, bool mine, int line) {
    const Lane* lanes = exchange(mask, &mine, sizeof mine, line);
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; ++i) votes |= unsigned(lanes[i].bytes[0] != 0) << i;
    return votes;
}

void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    unsigned mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const Lane* lanes = exchange(0xffffffffu, mine, sizeof mine, __LINE__);
    unsigned g = lane() / 4, t = lane() % 4;
    for (unsigned column = 0; column < 2; ++column) {
        float low = 0, high = 0;
        for (unsigned k = 0; k < 4; ++k) {
            unsigned left[4], right[6];
            memcpy(left, lanes[g * 4 + k].bytes, sizeof left);
            memcpy(right, lanes[(2 * t + column) * 4 + k].bytes, sizeof right);
            for (unsigned half = 0; half < 2; ++half) {
                float b_even = half_float(right[4 + half] & 0xffff), b_odd = half_float(right[4 + half] >> 16);
                low += half_float(left[2 * half] & 0xffff) * b_even + half_float(left[2 * half] >> 16) * b_odd;
                high += half_float(left[2 * half + 1] & 0xffff) * b_even +
                        half_float(left[2 * half + 1] >> 16) * b_odd;
            }
        }
        d[column] += low;
        d[2 + column] += high;
    }
}

void ldmatrix_x4(unsigned (&r)[4], const void* row, bool transposed) {
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: row is not aligned to 16 bytes");
    const Lane* lanes = exchange(0xffffffffu, &row, sizeof row, __LINE__);
    unsigned g = lane() / 4, t = lane() % 4;
    for (unsigned matrix = 0; matrix < 4; ++matrix) {
        auto at = [&](unsigned line, unsigned column) {
            const uint16_t* from;
            memcpy(&from, lanes[matrix * 8 + line].bytes, sizeof from);
            return unsigned(from[column]);
        };
        r[matrix] = transposed ? at(2 * t, g) | at(2 * t + 1, g) << 16 : at(g, 2 * t) | at(g, 2 * t + 1) << 16;
    }
}

void cp_async(void* to, const void* from, bool valid) {
    if ((reinterpret_cast<uintptr_t>(to) | (valid ? reinterpret_cast<uintptr_t>(from) : 0)) % 16 != 0)
        fail("cp.async: not aligned to 16 bytes");
    self().open.push_back({to, from, valid});
}

void cp_async_commit() {
    self().groups.push_back(std::move(self().open));
    self().open.clear();
}

void cp_async_wait(int unfinished) {
    auto& groups = self().groups;
    while (groups.size() > size_t(unfinished)) {
        for (const Copy& copy : groups.front()) {
            // Value by value, so that the sanitizer sees each end; memcpy may be inlined unchecked.
            auto* to = static_cast<volatile uint64_t*>(copy.to);
            auto* from = static_cast<const volatile uint64_t*>(copy.from);
            for (int i = 0; i < 2; ++i) to[i] = copy.valid ? from[i] : 0;
        }
        groups.erase(groups.begin());
    }
}

namespace {

// A value in the 128-byte swizzle: bits 4 to 6 of its address are combined with bits 7 to 9.
float swizzled(const unsigned char* at) {
    auto address = reinterpret_cast<uintptr_t>(at);
    address ^= (address >> 7 & 7) << 4;
    return half_float(*reinterpret_cast<const uint16_t*>(address));
}

void multiply(const Product& p) {
    unsigned g = lane() / 4, t = lane() % 4, first = current / 32 % 4 * 16;
    for (unsigned half = 0; half < 2; ++half) {
        unsigned row = first + g + half * 8;
        for (unsigned tile = 0; tile < p.tiles; ++tile) {
            for (unsigned j = 0; j < 2; ++j) {
                unsigned column = tile * 8 + 2 * t + j;
                float sum = 0;
                for (unsigned k = 0; k < 16; ++k) {
                    unsigned pair = p.quad[k % 8 / 2][k / 8 * 2 + half];
                    float a = p.in_registers ? half_float(k % 2 ? pair >> 16 : pair & 0xffff)
                                             : swizzled(p.a.start + row / 8 * p.a.far + row % 8 * 128 + k * 2);
                    sum += a * swizzled(p.across ? p.b.start + column / 64 * p.b.near + k / 8 * p.b.far + k % 8 * 128 +
                                                       column % 64 * 2
                                                 : p.b.start + column / 8 * p.b.far + column % 8 * 128 + k * 2);
                }
                float& d = p.d[tile * 4 + half * 2 + j];
                d = p.add ? d + sum : sum;
            }
        }
    }
}

} // namespace

void wgmma(float* d, unsigned tiles, Shared a, const unsigned* registers, Shared b, bool across, bool add) {
    Product product = {d, tiles, a, b, {}, registers != nullptr, across, add};
    unsigned none[4] = {};
    const Lane* lanes = exchange(0xffffffffu, registers ? registers : none, sizeof none, __LINE__);
    for (unsigned i = 0; i < 4; ++i) memcpy(product.quad[i], lanes[lane() / 4 * 4 + i].bytes, sizeof none);
    self().open_products.push_back(product);
}

void wgmma_commit() {
    self().product_groups.push_back(std::move(self().open_products));
    self().open_products.clear();
}

void wgmma_wait(int unfinished) {
    auto& groups = self().product_groups;
    while (groups.size() > size_t(unfinished)) {
        for (const Product& product : groups.front()) multiply(product);
        groups.erase(groups.begin());
    }
}

} // namespace shim

// Runs one grid: `call` is the `launch_NAME` of a kernel, the rest as cuLaunchKernel takes it.
extern "C" void cognate_shim_launch(void (*call)(void**), const unsigned grid[3], const unsigned block[3],
                                    unsigned shared_bytes, void** parameters, unsigned order, uint64_t seed) {
    using namespace shim;
    size_t threads = size_t(block[0]) * block[1] * block[2];
    blockIdx = {0, 0, 0};
    if (threads == 0 || threads > 1024 || threads % 32 != 0) fail("a block of %zu threads", threads);
    if (shared_bytes > 227 << 10) fail("%u bytes of shared memory", shared_bytes);
    if (grid[1] > 65535 || grid[2] > 65535) fail("a grid of %u x %u x %u blocks", grid[0], grid[1], grid[2]);
    // Stacks are kept: the sanitizer's marks of dead frames would stay on memory that was given back.
    static std::vector<char*> stacks;
    while (stacks.size() < threads) {
        void* stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (stack == MAP_FAILED) fail("no memory for stacks");
        stacks.push_back(static_cast<char*>(stack));
    }
    fibers.resize(threads);
    for (size_t i = 0; i < threads; ++i) fibers[i].stack = stacks[i];
    warps.resize(threads / 32);
    kernel = call;
    arguments = parameters;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    std::vector<size_t> blocks(size_t(grid[0]) * grid[1] * grid[2]);
    arrange(blocks, order, seed);
    for (size_t i : blocks) {
        blockIdx = {unsigned(i % grid[0]), unsigned(i / grid[0] % grid[1]), unsigned(i / grid[0] / grid[1])};
        run_block(shared_bytes, order, seed);
    }
}
