#include "pool.h"

#include <algorithm>
#include <chrono>
#include <system_error>
#include <thread>

#if !defined(_WIN32)
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace grilly {
namespace {

// About what waking a thread takes: long enough to bridge the gap between two steps of a loop with little else in it,
// short enough to leave a shared core to others.
constexpr auto kSpin = std::chrono::microseconds(50);

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
std::atomic<Pool*> pools[Pool::kMaxThreads + 1];
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

std::uint64_t Pool::Range::pack(std::uint64_t generation, std::uint64_t begin, std::uint64_t end) {
  return generation << (2 * kIndexBits) | begin << kIndexBits | end;
}

Pool& Pool::of(unsigned threads) {
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

Pool::Pool(unsigned threads) : ranges_(new Range[threads]) {
  // The system may have no more threads to give: the pool goes on with the ones that it got. They look at their number
  // only after the first job is published.
  for (threads_ = 1; threads_ < threads; ++threads_) {
    try {
      std::thread([this, self = threads_] { serve(self); }).detach();
    } catch (const std::system_error&) {
      break;
    }
  }
}

void Pool::run(const Job& job) {
  const std::unique_lock lock(busy_, std::try_to_lock);
  const bool asleep = lock.owns_lock() && std::chrono::steady_clock::now() - last_end_ > kSpin;
  if (!lock.owns_lock() || (asleep && !job.worth_waking)) {
    for (std::uint64_t chunk = 0; chunk < job.chunks; ++chunk) job.work(job.context, chunk);
    if (lock.owns_lock()) last_end_ = std::chrono::steady_clock::now();
    return;
  }
  // Of very many chunks, several to a claim.
  const std::uint64_t each = job.chunks / kMostClaims + 1, claims = (job.chunks + each - 1) / each;
  unfinished_.store(static_cast<std::uint32_t>(claims), std::memory_order_relaxed);
  work_.store(job.work, std::memory_order_relaxed);
  context_.store(job.context, std::memory_order_relaxed);
  backwards_.store(job.backwards, std::memory_order_relaxed);
  chunks_.store(job.chunks, std::memory_order_relaxed);
  each_.store(each, std::memory_order_relaxed);
  const std::uint32_t generation = generation_ = (generation_ + 1) & kGenerationMask;
  for (unsigned i = 0; i < threads_; ++i) {
    const std::uint64_t begin = claims * i / threads_, end = claims * (i + 1) / threads_;
    ranges_[i].word.store(Range::pack(generation, begin, end), std::memory_order_release);
  }
  wake_.store(generation, std::memory_order_release);
  wake_.notify_all();

  take_part(0, generation);
  for (std::uint32_t left; (left = unfinished_.load(std::memory_order_acquire)) != 0;)
    wait_for_change(unfinished_, left);
  last_end_ = std::chrono::steady_clock::now();
}

// The own range first, then what others have not begun. The job may be read only after a claim, which proves that it is
// still the job of this generation: run() returns, and publishes another, only when every claim is done.
void Pool::take_part(unsigned self, std::uint32_t generation) {
  const bool backwards = backwards_.load(std::memory_order_relaxed);
  std::uint32_t done = 0;  // told at the end: a shared counter per claim would cost as much as a small chunk
  for (unsigned k = 0; k < threads_; ++k) {
    const unsigned victim = (self + k) % threads_;
    std::uint32_t claimed;
    while (claim(ranges_[victim], generation, backwards != (victim != self), claimed)) {
      const Work work = work_.load(std::memory_order_relaxed);
      void* const context = context_.load(std::memory_order_relaxed);
      const std::uint64_t each = each_.load(std::memory_order_relaxed), begin = claimed * each;
      const std::uint64_t end = std::min(begin + each, chunks_.load(std::memory_order_relaxed));
      for (std::uint64_t chunk = begin; chunk < end; ++chunk) work(context, chunk);
      ++done;
    }
  }
  if (done > 0 && unfinished_.fetch_sub(done, std::memory_order_acq_rel) == done && self != 0) unfinished_.notify_one();
}

bool Pool::claim(Range& range, std::uint32_t generation, bool from_end, std::uint32_t& claimed) {
  std::uint64_t word = range.word.load(std::memory_order_acquire);
  for (;;) {
    const std::uint64_t begin = word >> kIndexBits & kMostClaims, end = word & kMostClaims;
    if (word >> (2 * kIndexBits) != generation || begin >= end) return false;
    const std::uint64_t rest =
        from_end ? Range::pack(generation, begin, end - 1) : Range::pack(generation, begin + 1, end);
    if (range.word.compare_exchange_weak(word, rest, std::memory_order_acq_rel, std::memory_order_acquire)) {
      claimed = static_cast<std::uint32_t>(from_end ? end - 1 : begin);
      return true;
    }
  }
}

void Pool::serve(unsigned self) {
  for (std::uint32_t seen = 0;;) {
    wait_for_change(wake_, seen);
    seen = wake_.load(std::memory_order_acquire);
    take_part(self, seen);
  }
}

}  // namespace grilly
