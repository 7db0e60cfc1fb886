# The judge's speed beside other ways to run foreign code, in one run, by turns. Needs runc and bubblewrap, which are not
# installed for it (apt install runc bubblewrap); what is missing is said and left out. The real programs are those of
# $COGNATE_REFERENCE (../shared/data). evalplus comes from PyPI without the packages that only its model clients need.
# Six minutes on two cores; times are measured: run it on a quiet machine, as root for the comparison with runc.

EVALPLUS_PYTHON ?= .venv/evalplus/bin/python

.PHONY: bench-judge agree-python

.venv/evalplus/bin/python:
	python3 -m venv .venv/evalplus
	.venv/evalplus/bin/pip install --quiet --no-deps evalplus==0.3.1 numpy==2.4.6 psutil==7.2.2 tqdm==4.70.1 appdirs==1.4.4 wget==3.2 tempdir==0.7.1 multipledispatch==1.0.0 termcolor==3.3.0 fire==0.7.1

bench-judge: build $(EVALPLUS_PYTHON) ## judged runs a second, by turns with runc, bubblewrap and evalplus' executor
	pipelines/bench-judge.py --evalplus $(EVALPLUS_PYTHON) --data "$${COGNATE_REFERENCE:-../shared/data}"

agree-python: build ## judge the real Python programs through the fork server and run them plainly; print where they differ
	pipelines/agree-python.py "$${COGNATE_REFERENCE:-../shared/data}"
