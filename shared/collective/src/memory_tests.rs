//! Ranks as threads: a lock belongs to an open file, so they are as strange to each other as processes.

use super::*;

/// What `f` gives on each of `size` ranks; regions are small, so that everything takes several rounds.
fn ranks<T: Send>(size: usize, f: impl Fn(&mut SharedMemory) -> T + Sync) -> Vec<T> {
    let temp = tempfile::tempdir().unwrap();
    let member =
        |rank| Member { folder: temp.path().join("ranks"), rank, size, patience: Duration::from_secs(60) };
    std::thread::scope(|scope| {
        let run = |rank| {
            let (member, f) = (member(rank), &f);
            scope.spawn(move || f(&mut SharedMemory::with_region(&member, 64).unwrap()))
        };
        let threads: Vec<_> = (0..size).map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn values(rank: usize, n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + rank * 101) as f32 * 0.1).sin() * 10f32.powi((i % 7) as i32 - 3)).collect()
}

/// The sums, one by one over the ranks in order.
fn sums(size: usize, n: usize) -> Vec<f32> {
    let mut sum = values(0, n);
    (1..size).for_each(|rank| sum.iter_mut().zip(values(rank, n)).for_each(|(sum, x)| *sum += x));
    sum
}

#[test]
fn sums_shares_and_copies_are_exact_whatever_the_sizes() {
    for size in [1, 2, 3, 5] {
        for n in [0, 1, 2, 63, 64, 65, 1000] {
            let want = sums(size, n);
            let found = ranks(size, |all| {
                let rank = all.rank();
                let own = share(n, rank, size);
                let (mut whole, mut part, mut copy) = (values(rank, n), values(rank, n), values(rank, n));
                all.all_reduce(&mut whole).unwrap();
                all.reduce_scatter(&mut part).unwrap();
                assert_eq!(part[..own.start], values(rank, n)[..own.start], "the rest is left");
                let scattered = part[own].to_vec();
                all.all_gather(&mut part).unwrap();
                all.broadcast(&mut copy, size - 1).unwrap();
                all.barrier().unwrap();
                let mut few = [rank as f64, 1.0];
                all.all_reduce_f64(&mut few).unwrap();
                (whole, scattered, part, copy, few)
            });
            let scattered: Vec<f32> = found.iter().flat_map(|f| f.1.clone()).collect();
            assert_eq!(scattered, want, "{size} ranks, {n} values");
            for (whole, _, gathered, copy, few) in found {
                assert!(whole == want && gathered == want, "{size} ranks, {n} values");
                assert_eq!(copy, values(size - 1, n));
                assert_eq!(few, [(size * (size - 1) / 2) as f64, size as f64]);
            }
        }
    }
}

#[test]
fn a_rank_that_ends_makes_the_others_stop() {
    let found = ranks(3, |all| {
        all.barrier().unwrap();
        if all.rank() == 1 {
            return None;
        }
        Some(all.all_reduce(&mut values(0, 1000)).unwrap_err().to_string())
    });
    let want = Some("rank 1 has ended while others waited for it (all-reduce)".to_owned());
    // Whoever notices first ends too, and may be the one that the other misses.
    let other = |rank| Some(format!("rank {rank} has ended while others waited for it (all-reduce)"));
    assert!(found[0] == want || found[0] == other(2), "{found:?}");
    assert!(found[2] == want || found[2] == other(0), "{found:?}");
    assert!(found[0] == want || found[2] == want, "{found:?}");
}

#[test]
fn those_that_cannot_meet_say_why() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().to_path_buf();
    let member = |rank, size, millis| Member {
        folder: folder.clone(),
        rank,
        size,
        patience: Duration::from_millis(millis),
    };
    let refused = |m: &Member| SharedMemory::join(m).err().unwrap().to_string();
    assert_eq!(refused(&member(2, 2, 9)), "rank 2 of 2: ranks count from 0");
    assert!(refused(&member(0, 2, 50)).ends_with("rank 1 has not come within 0 s"));
    assert!(refused(&member(1, 2, 50)).ends_with("rank 0 has not come within 0 s"));
    let held = Rendezvous::take(&member(1, 2, 9)).unwrap();
    assert!(refused(&member(1, 2, 9)).ends_with("another process is rank 1 here"));
    drop(held);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| refused(&member(0, 2, 3000)));
        let reason = refused(&member(1, 3, 3000));
        assert!(reason.ends_with("rank 0 was started for 2 ranks, this one for 3"), "{reason}");
        assert!(first.join().unwrap().ends_with("rank 1 has not come within 3 s"));
    });
}

#[test]
fn what_an_earlier_run_has_left_leads_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    // A rank 0 that was killed while it waited: its word and its file still stand.
    let member =
        |rank| Member { folder: temp.path().into(), rank, size: 2, patience: Duration::from_secs(60) };
    let (stale, map) = create(&member(0), REGION).unwrap();
    // SAFETY: the map is longer than a header.
    let header = unsafe { &*map.as_ptr().cast::<Header>() };
    header.size.store(2, Ordering::Relaxed);
    header.magic.store(MAGIC, Ordering::Release);
    fs::write(temp.path().join("meeting"), stale.display().to_string()).unwrap();
    std::thread::scope(|scope| {
        let join = |rank| SharedMemory::join(&member(rank)).unwrap().barrier().unwrap();
        let second = scope.spawn(move || join(1));
        std::thread::sleep(Duration::from_millis(30));
        join(0);
        second.join().unwrap();
    });
    fs::remove_file(stale).unwrap();
}
