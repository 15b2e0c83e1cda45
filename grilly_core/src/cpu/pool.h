// A small thread pool for loops over memory.
//
// Every thread has a range of chunks of its own, the same one in every run of a plan, so that what it touched last time
// is still in its cache; when it is done it takes chunks from the far end of another's range. The caller starts at
// once: nobody waits for a worker that is still asleep. Workers spin for some microseconds after a job and then sleep,
// so that a program that does other work between steps is not disturbed.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>

namespace grilly {

class Pool {
 public:
  using Work = void (*)(void* context, std::uint64_t chunk);

  struct Job {
    Work work;
    void* context;
    std::uint64_t chunks;
    bool backwards;     // each thread goes through its range from the end
    bool worth_waking;  // large enough to wake threads that sleep
  };
  static constexpr unsigned kMaxThreads = 256;

  // The pool with that many threads (1 to kMaxThreads), the caller's included. Pools live to the end of the process; a
  // forked child gets its own.
  static Pool& of(unsigned threads);

  // Calls work(context, chunk) for every chunk, and returns when all are done. The caller does the job alone when the
  // pool is busy with another thread's, or when the workers sleep and the job is not worth waking them.
  void run(const Job& job);

 private:
  static constexpr unsigned kIndexBits = 20;
  static constexpr std::uint32_t kMostClaims = (1u << kIndexBits) - 1;
  static constexpr std::uint32_t kGenerationMask = (1u << (64 - 2 * kIndexBits)) - 1;
  // generation, begin, end (kIndexBits each): one word, so that a claim proves that it is of this generation.
  struct alignas(64) Range {
    static std::uint64_t pack(std::uint64_t generation, std::uint64_t begin, std::uint64_t end);
    std::atomic<std::uint64_t> word{0};
  };

  explicit Pool(unsigned threads);
  void serve(unsigned self);
  void take_part(unsigned self, std::uint32_t generation);
  bool claim(Range& range, std::uint32_t generation, bool from_end, std::uint32_t& claimed);

  unsigned threads_ = 1;
  const std::unique_ptr<Range[]> ranges_;
  std::mutex busy_;
  std::uint32_t generation_ = 0;
  std::chrono::steady_clock::time_point last_end_{};
  alignas(64) std::atomic<std::uint32_t> unfinished_{0};
  alignas(64) std::atomic<std::uint32_t> wake_{0};  // the generation, for sleepers
  std::atomic<Work> work_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<bool> backwards_{false};
  std::atomic<std::uint64_t> chunks_{0}, each_{1};  // so many chunks to a claim
};

}  // namespace grilly
