// Package attacks does to a server what strangers may do who reach its client port, while a client of good manners puts and
// gets beside them: floods of frames, calls that are never finished or never read, connections that say nothing or nonsense.
//
// What must hold is counted, never timed: the good client sees no error; who floods is sent away with GOAWAY; the server's
// memory grows by no more than the bound of the attack, and the CPU time that the attack costs stays below half a core.
// How the good client's latencies fare is printed, with -v, and by ./figures beside genuine etcd.
package attacks
