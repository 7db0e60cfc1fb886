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

enum class State { ready, block, warp, event, done };

struct Copy {
    void* to;
    const void* from;
    bool valid;
};

struct Product {
    float* d;
    unsigned tiles;
    Shared a, b;
    // This lane's part of the left operand, where it is in registers, and what it was.
    const unsigned* registers;
    unsigned left[4];
    bool across, add;

    bool like(const Product& other) const {
        return tiles == other.tiles && across == other.across && add == other.add && !registers == !other.registers &&
               a.start == other.a.start && b.start == other.b.start;
    }
};

struct Fiber {
    Context context;
    char* stack = nullptr;
    State state = State::ready;
    int line = 0;
    // What an event is awaited of: an mbarrier, or a barrier of a part of the block.
    const void* event = nullptr;
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

// What `cognate_shim_map` writes: a matrix of 16-bit values.
struct Map {
    uint64_t mark;
    const unsigned char* matrix;
    uint64_t rows, columns;
};
constexpr uint64_t MAP_MARK = 0x70616d20736d6968u;
constexpr unsigned BOX = 64;

struct BoxCopy {
    unsigned char* to;
    Map map;
    unsigned column, row;
};

struct Mbarrier {
    const void* place;
    unsigned arrivals, missing;
    uint64_t phase;
    long bytes;
    std::vector<BoxCopy> copies;
};

struct Part {
    unsigned threads, arrived, turn;
};

struct Region {
    const void* site;
    void* memory;
};

Context scheduler;
std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::vector<Region> regions;
std::vector<Mbarrier> mbarriers;
Part parts[16];
bool random_order = false, resting = false;
uint64_t random_state = 0;
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

void wake(const void* event) {
    for (Fiber& fiber : fibers)
        if (fiber.state == State::event && fiber.event == event) fiber.state = State::ready;
}

size_t offset(const void* place) { return size_t(static_cast<const char*>(place) - static_cast<char*>(dynamic)); }

// Whoever waits for an event when nothing moves any more waits for ever. Where only bytes are missing
// is where it began: those who wait for arrivals may wait for the ones who wait there.
void report_deadlock() {
    for (bool began : {true, false}) {
        for (size_t i = 0; i < fibers.size(); ++i) {
            if (fibers[i].state != State::event) continue;
            for (const Mbarrier& b : mbarriers)
                if (b.place == fibers[i].event && (b.missing == 0 || !began))
                    fail("deadlock: thread %zu waits for phase %llu of the mbarrier at byte %zu, which lacks %u "
                         "arrivals and %ld bytes",
                         i, (unsigned long long)b.phase, offset(b.place), b.missing, b.bytes);
            for (const Part& part : parts)
                if (&part == fibers[i].event && !began)
                    fail("deadlock: thread %zu waits at part barrier %td, where %u of %u threads are", i, &part - parts,
                         part.arrived, part.threads);
        }
    }
}

// What a block may not leave behind.
void check_end() {
    for (const Mbarrier& b : mbarriers)
        if (!b.copies.empty())
            fail("the block ended with %zu copies to the mbarrier at byte %zu that nobody waited for", b.copies.size(),
                 offset(b.place));
    for (const Part& part : parts)
        if (part.arrived != 0)
            fail("the block ended with %u of %u threads at part barrier %td", part.arrived, part.threads,
                 &part - parts);
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
    mbarriers.clear();
    for (Part& part : parts) part = {};
    random_order = kind == 2;
    random_state = next_random(seed);
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
                if (std::exchange(resting, false)) break;
                if (kind == 2 && next_random(seed) % 4 == 0) break;
            }
        }
        if (!moved) {
            report_deadlock();
            size_t a = 0;
            while (fibers[a].state == State::done) ++a;
            size_t b = n - 1;
            while (fibers[b].state == State::done || (b > a && fibers[b].line == fibers[a].line)) --b;
            fail("divergent barrier: of %zu threads, thread %zu waits at line %d and thread %zu at line %d", n, a,
                 fibers[a].line, b, fibers[b].line);
        }
    }
    check_end();
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
unsigned char* swizzled(const unsigned char* at) {
    auto address = reinterpret_cast<uintptr_t>(at);
    address ^= (address >> 7 & 7) << 4;
    return reinterpret_cast<unsigned char*>(address);
}

float value_at(const unsigned char* at) { return half_float(*reinterpret_cast<const uint16_t*>(swizzled(at))); }

// d [16, columns] of a [16, 16] and b [16, columns] in fp32, in the order of the inner dimension. Arrays
// of its own alone, so the sanitizers have nothing to see in it, and need not make it slow.
__attribute__((no_sanitize("address", "undefined"), optimize("O3"))) void
multiply_tile(float (*__restrict d)[128], const float (*__restrict a)[16], const float (*__restrict b)[128],
              unsigned columns) {
    for (unsigned row = 0; row < 16; ++row) {
        for (unsigned c = 0; c < columns; ++c) d[row][c] = 0;
        for (unsigned k = 0; k < 16; ++k)
            for (unsigned c = 0; c < columns; ++c) d[row][c] += a[row][k] * b[k][c];
    }
}

// The product of a whole warp, which stands at its wait: this lane does the others' part too.
void multiply(size_t group) {
    size_t first = current / 32 * 32;
    unsigned top = unsigned(current / 32 % 4 * 16);
    static float a[16][16], b[16][128], d[16][128];
    const std::vector<Product>& mine = self().product_groups[group];
    for (size_t i = 0; i < mine.size(); ++i) {
        const Product& p = mine[i];
        for (unsigned lane = 0; lane < 32; ++lane) {
            const auto& theirs = fibers[first + lane].product_groups;
            if (theirs.size() <= group || theirs[group].size() != mine.size() || !theirs[group][i].like(p))
                fail("lanes of a warp have different products under way");
            const Product& q = theirs[group][i];
            if (!q.registers) continue;
            for (unsigned r = 0; r < 4; ++r) {
                if (q.registers[r] != q.left[r])
                    fail("thread %zu changed a left operand in registers before its product's wait", first + lane);
                unsigned row = lane / 4 + r % 2 * 8, k = lane % 4 * 2 + r / 2 * 8;
                a[row][k] = half_float(q.left[r] & 0xffff);
                a[row][k + 1] = half_float(q.left[r] >> 16);
            }
        }
        if (!p.registers)
            for (unsigned row = 0; row < 16; ++row)
                for (unsigned k = 0; k < 16; ++k)
                    a[row][k] = value_at(p.a.start + (top + row) / 8 * p.a.far + row % 8 * 128 + k * 2);
        for (unsigned k = 0; k < 16; ++k)
            for (unsigned c = 0; c < p.tiles * 8; ++c)
                b[k][c] = value_at(p.across
                                       ? p.b.start + c / 64 * p.b.near + k / 8 * p.b.far + k % 8 * 128 + c % 64 * 2
                                       : p.b.start + c / 8 * p.b.far + c % 8 * 128 + k * 2);
        multiply_tile(d, a, b, p.tiles * 8);
        for (unsigned lane = 0; lane < 32; ++lane) {
            float* to = fibers[first + lane].product_groups[group][i].d;
            for (unsigned j = 0; j < p.tiles * 4; ++j) {
                float sum = d[lane / 4 + j / 2 % 2 * 8][j / 4 * 8 + lane % 4 * 2 + j % 2];
                to[j] = p.add ? to[j] + sum : sum;
            }
        }
    }
}

} // namespace

void wgmma(float* d, unsigned tiles, Shared a, const unsigned* registers, Shared b, bool across, bool add) {
    Product product = {d, tiles, a, b, registers, {}, across, add};
    if (registers) memcpy(product.left, registers, sizeof product.left);
    self().open_products.push_back(product);
}

void wgmma_commit() {
    self().product_groups.push_back(std::move(self().open_products));
    self().open_products.clear();
}

void wgmma_wait(int unfinished) {
    exchange(0xffffffffu, nullptr, 0, __LINE__);
    // The first to come here works for the warp.
    size_t groups = self().product_groups.size();
    if (groups <= size_t(unfinished)) return;
    size_t count = groups - unfinished;
    for (size_t group = 0; group < count; ++group) multiply(group);
    for (size_t i = current / 32 * 32, end = i + 32; i < end; ++i) {
        auto& theirs = fibers[i].product_groups;
        if (theirs.size() != groups) fail("lanes of a warp have different products under way");
        theirs.erase(theirs.begin(), theirs.begin() + count);
    }
}

namespace {

Mbarrier& find(const void* place) {
    for (Mbarrier& b : mbarriers)
        if (b.place == place) return b;
    fail("thread %zu uses an mbarrier at byte %zu that is not initialised", current, offset(place));
}

void settle(Mbarrier& b) {
    if (b.missing > 0 || b.bytes > 0) return;
    ++b.phase;
    b.missing = b.arrivals;
    wake(b.place);
}

void land(Mbarrier& b) {
    for (const BoxCopy& copy : b.copies) {
        for (unsigned r = 0; r < BOX; ++r) {
            for (unsigned c = 0; c < BOX; ++c) {
                uint64_t row = uint64_t(copy.row) + r, column = uint64_t(copy.column) + c;
                uint16_t value = 0;
                if (row < copy.map.rows && column < copy.map.columns)
                    value = reinterpret_cast<const uint16_t*>(copy.map.matrix)[row * copy.map.columns + column];
                *reinterpret_cast<uint16_t*>(swizzled(copy.to + r * 128 + c * 2)) = value;
            }
        }
        b.bytes -= BOX * BOX * 2;
    }
    b.copies.clear();
    settle(b);
}

} // namespace

void mbarrier_init(void* place, unsigned arrivals) {
    if (reinterpret_cast<uintptr_t>(place) % 8 != 0) fail("an mbarrier is not aligned to 8 bytes");
    if (arrivals == 0) fail("an mbarrier of no arrivals");
    for (const Mbarrier& b : mbarriers)
        if (b.place == place) fail("the mbarrier at byte %zu is initialised twice", offset(place));
    // The sanitizer sees whether it lies in shared memory.
    *static_cast<volatile uint64_t*>(place) = arrivals;
    mbarriers.push_back({place, arrivals, arrivals, 0, 0, {}});
}

void mbarrier_arrive(void* place, unsigned bytes) {
    Mbarrier& b = find(place);
    if (b.missing == 0) fail("thread %zu arrives once too often at the mbarrier at byte %zu", current, offset(place));
    b.bytes += bytes;
    --b.missing;
    settle(b);
    // Perhaps only the copies are missing now.
    wake(place);
    // In random order others may go on from here before this warp does: what is let go of too early shows.
    if (random_order && next_random(random_state) % 2 == 0) {
        resting = true;
        yield(State::ready, 0);
    }
}

void mbarrier_wait(void* place, unsigned parity) {
    for (;;) {
        Mbarrier& b = find(place);
        if ((b.phase & 1) != parity) return;
        if (b.missing == 0 && b.bytes == long(b.copies.size() * BOX * BOX * 2)) {
            land(b);
            continue;
        }
        self().event = place;
        yield(State::event, 0);
    }
}

// Bytes are expected before the copy that brings them: the device also takes the other order, in
// which a phase may end too early.
void fetch_box(void* to, const void* map, unsigned column, unsigned row, void* place) {
    Mbarrier& b = find(place);
    BoxCopy copy = {static_cast<unsigned char*>(to), {}, column, row};
    memcpy(&copy.map, map, sizeof copy.map);
    if (copy.map.mark != MAP_MARK) fail("a copy by a map that is none");
    if (reinterpret_cast<uintptr_t>(to) % 1024 != 0) fail("a box is not aligned to 1,024 bytes");
    b.copies.push_back(copy);
    if (long(b.copies.size() * BOX * BOX * 2) > b.bytes)
        fail("thread %zu copies %zu bytes, of which the mbarrier at byte %zu expects %ld", current,
             b.copies.size() * BOX * BOX * 2, offset(place), b.bytes);
    if (random_order && next_random(random_state) % 2 == 0) land(b);
    wake(place);
}

void part_barrier(unsigned id, unsigned threads, bool wait) {
    if (id == 0 || id >= 16 || threads % 32 != 0) fail("part barrier %u of %u threads", id, threads);
    Part& part = parts[id];
    if (part.arrived > 0 && part.threads != threads)
        fail("part barrier %u of %u threads, where others say %u", id, threads, part.threads);
    part.threads = threads;
    if (++part.arrived == threads) {
        part.arrived = 0;
        ++part.turn;
        wake(&part);
        return;
    }
    unsigned turn = part.turn;
    while (wait && part.turn == turn) {
        self().event = &part;
        yield(State::event, 0);
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

// The shim's map of a dense matrix [rows, columns] of 16-bit values, 128 bytes to `map`.
extern "C" void cognate_shim_map(void* map, const void* matrix, uint64_t rows, uint64_t columns) {
    shim::Map made = {shim::MAP_MARK, static_cast<const unsigned char*>(matrix), rows, columns};
    memset(map, 0, 128);
    memcpy(map, &made, sizeof made);
}
