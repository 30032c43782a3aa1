// Package exposure decides whether a kernel has a known bug, by the best that is to be had:
// the code that runs, read from /proc/kcore; else the code in the file that was booted;
// else, as a guess, the version.
//
// [Running] answers for the machine that it runs on, [Open] for what may be another one's
// files, and [Of] for a dump or a kernel's file.
package exposure
