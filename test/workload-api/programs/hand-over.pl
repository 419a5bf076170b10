# Connects to the socket, waits for a line, and hands the open connection to another program:
# `exec`: this process becomes that program. `fork`: a child does, and this process exits.
use strict;
use warnings;
use IO::Socket::UNIX;

my ($how, $path, @program) = @ARGV;
$^F = 1000;    # descriptors opened from here on survive exec
my $socket = IO::Socket::UNIX->new(Peer => $path) or die "connect: $!";
$| = 1;
print "connected\n";
<STDIN>;
exit 0 if $how eq 'fork' and fork() != 0;
if ($how eq 'fork') { select(undef, undef, undef, 0.01) while getppid() != 1 and kill 0, getppid(); }
exec @program, 'fd:' . fileno($socket);
