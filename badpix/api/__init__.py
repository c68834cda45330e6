"""The functions behind ``import badpix``: files or arrays in, results with arrays, counts, evidence and notes out.

1. Files go through the same drivers as on the command line, into a private folder; what was found comes back in
   memory (:class:`badpix.api.defects.DefectMask`), and :func:`badpix.api.masks.write_mask` writes the same bytes.
2. Arrays become files of the pipeline's form in that folder first (:mod:`badpix.api.arrays`): one code for both.
3. Nothing is printed. The library logs to ``badpix`` (INFO: what is done; WARNING: what the user should know, which
   is also in the ``notes`` of the result). ``progress`` is called with the number of steps done and in all.
4. Work runs in this process, or in any ``concurrent.futures.Executor`` that is given; the result is the same.
"""

import logging

logging.getLogger("badpix").addHandler(logging.NullHandler())
