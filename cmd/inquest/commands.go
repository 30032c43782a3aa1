package main

// commands is every command, in the order in which the help lists them. One
// file each; what is not here does not exist.
var commands = []*command{
	explainCommand,
	infoCommand,
	btCommand,
	foreachCommand,
	psCommand,
	runqCommand,
	locksCommand,
	timerCommand,
	irqCommand,
	taskCommand,
	filesCommand,
	vmCommand,
	mountCommand,
	devCommand,
	netCommand,
	logCommand,
	modCommand,
	symCommand,
	structCommand,
	rdCommand,
	disCommand,
	vtopCommand,
	whatisCommand,
	slabCommand,
	kmemCommand,
	swapCommand,
	shrinkCommand,
}

// groups are the commands that read no dump.
var groups = []*group{
	advisoryGroup,
	doctorGroup,
	labGroup,
	verdictGroup,
	guardGroup,
}
