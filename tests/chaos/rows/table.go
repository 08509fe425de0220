package rows

// All are the rows that this command answers for.
var All = []Row{
	{1, "kill -9 of a follower", "no client error elsewhere; write p99 ≤ 2 × calm; caught up ≤ 5 s after its start", "", killFollower, true},
	{2, "kill -9 of the leader", "safe; writes resume ≤ 3 s p99, ≤ 5 s max of 20; watches lose nothing", "", killLeader, true},
	{3, "kill -9 of all", "every acknowledged write is there; revisions never fall; serving ≤ 5 s after the start", "", killAll, true},
	{4, "power cut of all", "as 3, without repair by hand", "`cargo test -p basalt-tests --test simulation --test node_sim --test crash`", nil, false},
	{5, "SIGSTOP of the leader", "no stale read; no lease ends early; what waited for it ends", "", pauseLeader, true},
	{6, "SIGSTOP of a follower", "memory of the leader flat; no write waits; a whole state when it is far behind", "", pauseFollower, false},
	{7, "the leader is cut off", "new leader ≤ 3 s; the old one steps down ≤ 2 elections; `no leader` to watches that need one; serializable reads go on", "", isolateLeader, true},
	{8, "one-way cuts", "≤ 1 leader change a cut, terms do not grow; writes go on", "", oneWay, false},
	{9, "a bridge", "one stable leader within 10 s; ≤ 2 changes a minute", "", bridge, false},
	{10, "30 % loss, 100 ± 50 ms, 1 Mbit/s", "safe; repeats and reorder of messages: the simulator, for TCP hides them", "", poorNetwork, false},
	{11, "wrong wall clocks", "no lease ends early; no election; starts go on; drift of the monotonic clock: the simulator", "", wrongClocks, true},
	{12, "ENOSPC at one member", "it stops or says NOSPACE; nothing is lost; the others go on; well again when there is space", "", fullOne, false},
	{13, "ENOSPC at all", "puts ResourceExhausted; reads, deletes, compaction and defragmentation work; well again without a restart", "", fullAll, false},
	{14, "fdatasync fails once", "the process ends and acknowledges nothing of it; it starts again and rejoins", "", failedCall("fdatasync:error=EIO:when=1"), true},
	{15, "a write fails; reads that fail", "as 14; short writes and failing reads: `cargo test -p basalt-tests --test faults`", "", failedCall("pwrite64:error=EIO:when=1"), true},
	{16, "torn tail of the log", "cut off silently, at every byte", "`cargo test -p basalt-storage wal::tests`", nil, false},
	{21, "slow syncs", "the leader hands over when three syncs take half an election; followers do not matter", "", slowDisk, false},
	{22, "members change amid partitions", "safe; learners first; what would lose the quorum is refused", "", changesAmidPartition, false},
	{23, "a majority is lost for good", "a restore with raised, compacted revision serves ≤ 60 s at 1 GiB; old watches are told", "", restore, true},
	{24, "the quota is used up", "NOSPACE; puts fail; deletes, compaction, defragmentation and disarming work", "", quota, true},
	{31, "watches that nobody reads", "memory bounded; events of others p99 ≤ 2 ×", "", slowWatchers, false},
	{32, "100,000 leases end in one second", "all revoked ≤ 20 s; no leader change; write p99 ≤ 3 ×", "", leasesTogether, false},
	{34, "rolling upgrade, 20 times", "history good; ≤ 3 s without a write for each leader", "", rolling, false},
}
