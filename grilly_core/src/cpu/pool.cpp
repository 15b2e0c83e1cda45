#include "pool.h"

#include <chrono>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace grilly {
namespace {

// Long enough to bridge the gap between two plans of a step, short enough to leave a shared core to others.
constexpr auto kSpin = std::chrono::microseconds(20);
constexpr unsigned kMaxThreads = 256;

void relax() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Waits until `value` differs from `old`: spins for a while, then sleeps.
void wait_for_change(const std::atomic<std::uint32_t>& value, std::uint32_t old) {
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 64; ++i) {
      if (value.load(std::memory_order_acquire) != old) return;
      relax();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  value.wait(old, std::memory_order_acquire);
}

// By number of threads. Leaked on purpose: workers may still sleep in a pool while the process exits.
std::atomic<Pool*> pools[kMaxThreads + 1];
std::mutex pools_mutex;

#if !defined(_WIN32)
// A child has none of its parent's threads: it forgets the pools and makes its own at first use. The lock is held over
// the fork, so that it is not another thread's in the child.
[[maybe_unused]] const int fork_handler = pthread_atfork([] { pools_mutex.lock(); }, [] { pools_mutex.unlock(); },
                                                         [] {
                                                           for (std::atomic<Pool*>& pool : pools)
                                                             pool.store(nullptr, std::memory_order_relaxed);
                                                           pools_mutex.unlock();
                                                         });
#endif

}  // namespace

Pool& Pool::of(unsigned threads) {
  if (threads < 1) threads = 1;
  if (threads > kMaxThreads) threads = kMaxThreads;
  Pool* pool = pools[threads].load(std::memory_order_acquire);
  if (!pool) {
    const std::lock_guard lock(pools_mutex);
    pool = pools[threads].load(std::memory_order_relaxed);
    if (!pool) {
      pool = new Pool(threads);
      pools[threads].store(pool, std::memory_order_release);
    }
  }
  return *pool;
}

Pool::Pool(unsigned threads) {
  for (unsigned i = 1; i < threads; ++i) std::thread([this] { serve(); }).detach();
}

void Pool::run(Work work, void* context, std::uint32_t chunks) {
  const std::unique_lock lock(busy_, std::try_to_lock);
  if (!lock.owns_lock()) {
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) work(context, chunk);
    return;
  }
  unfinished_.store(chunks, std::memory_order_relaxed);
  work_.store(work, std::memory_order_relaxed);
  context_.store(context, std::memory_order_relaxed);
  const std::uint32_t generation = ++generation_;
  ticket_.store(std::uint64_t{generation} << 32 | chunks, std::memory_order_release);
  wake_.store(generation, std::memory_order_release);
  wake_.notify_all();

  std::uint32_t chunk;
  while (claim(generation, chunk)) {
    work(context, chunk);
    unfinished_.fetch_sub(1, std::memory_order_acq_rel);
  }
  for (std::uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;)
    wait_for_change(unfinished_, left);
}

// A worker that comes late finds another generation in the ticket and cannot claim: only a claim, which the exchange
// proves to be of this generation, gives the right to read the job.
bool Pool::claim(std::uint32_t generation, std::uint32_t& chunk) {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (ticket >> 32 == generation && static_cast<std::uint32_t>(ticket) != 0) {
    if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
      chunk = static_cast<std::uint32_t>(ticket) - 1;
      return true;
    }
  }
  return false;
}

void Pool::serve() {
  for (std::uint32_t seen = 0;;) {
    wait_for_change(wake_, seen);
    seen = wake_.load(std::memory_order_acquire);
    std::uint32_t chunk;
    while (claim(seen, chunk)) {
      work_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), chunk);
      if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    }
  }
}

}  // namespace grilly
