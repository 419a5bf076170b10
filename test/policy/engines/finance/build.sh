#!/bin/sh
# Makes finance.tar.gz of finance.rego, with the opa on the PATH.
cd "$(dirname "$0")" || exit
exec opa build -t wasm -o finance.tar.gz finance.rego $(sed -n 's/^\([a-z_]*\) \(if\|:=\).*/\1/p;s/^default \([a-z_]*\).*/\1/p' finance.rego |
	sort -u | sed 's#^#-e finance/#')
